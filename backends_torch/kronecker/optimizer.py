"""The optimizer around the Kronecker preconditioner: statistics, inverses, trust region, then a momentum step.

In a step, nothing is written before everything is known to be finite: new statistics and inverses are worked out beside
the old ones, directions from them, and only then state and parameters change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.adapter import RuleOptimizer
from hessiod.backends_torch.curvature import GaussNewtonBartlett, check_loss
from hessiod.backends_torch.fast import advance, first_nonfinite
from hessiod.backends_torch.kronecker import blocks
from hessiod.backends_torch.kronecker.capture import Capture, Counter
from hessiod.backends_torch.kronecker.discover import AnyLayer, discover
from hessiod.backends_torch.kronecker.distributed import Cluster, check_alone, check_whole
from hessiod.backends_torch.kronecker.layers import Slot
from hessiod.backends_torch.kronecker.plan import Plan, make_plan
from hessiod.backends_torch.kronecker.policies import Fixed
from hessiod.backends_torch.kronecker.settings import check_settings, grouped
from hessiod.backends_torch.kronecker.states import check_layers, prefix_of, restore
from hessiod.backends_torch.precision import widened
from hessiod.backends_torch.second_order import DUE_HINT, scaler_forgotten_on_error
from hessiod.core.errors import InvalidArgument, InvalidState, NonFinite
from hessiod.core.kronecker import trust_region
from hessiod.core.rule import Rule
from hessiod.core.rules import RULES
from hessiod.core.sgd import sgd_rule

LOG = logging.getLogger("hessiod")


class KroneckerOptimizer(RuleOptimizer):
    """What K-FAC, SP-NGD and THOR share; each is a policy and a signature.

    Parameters in covered layers move along their natural gradient, with momentum; the others follow ``fallback``, in
    groups of their own with ``fallback_lr``. :meth:`plan` says which is which.
    """

    policy: Any = Fixed()

    _due_hint = DUE_HINT

    def __init__(
        self,
        model: nn.Module,
        params: Any,
        settings: Mapping[str, Any],
        *,
        skip: Sequence[str],
        grad_scaler: Any,
        process_group: Any,
        placement: str,
        overlap: bool,
        maximize: bool,
        nonfinite: str,
        missing: str,
    ) -> None:
        check_settings(model, settings, skip)
        check_alone(process_group)
        check_whole(model)
        groups = grouped(model, params, settings)
        wanted = {param for group in groups for param in group["params"]}
        found = discover(model, wanted, tuple(skip))
        if not found.layers:
            reasons = ", ".join(sorted(set(found.reasons.values()))) or "it has no trained parameters"
            raise InvalidArgument(
                f"model: found {type(model).__name__} with no layer that {type(self).__name__} covers ({reasons}), "
                "expected at least one Linear, Conv, Embedding, MultiheadAttention or normalisation layer; use AdamW"
            )
        self.layers, self._names, self._reasons = found.layers, found.names, found.reasons
        self._built, self._grad_scaler = False, grad_scaler
        covered = {param for layer in found.layers for param in layer.params}
        split = []
        for group in groups:
            for kind in (True, False):
                chosen = [param for param in group["params"] if (param in covered) is kind]
                rate = group["lr"] if kind else group.pop("fallback_lr", settings["fallback_lr"])
                if chosen:
                    split.append({**group, "params": chosen, "covered": kind, "lr": rate, "first_lr": rate})
        base = {**settings, "covered": True, "first_lr": settings["lr"], "numbers": {}}
        super().__init__(split, base, maximize=maximize, nonfinite=nonfinite, missing=missing)
        self._built, self._cluster = True, None
        if process_group not in (None, False):
            every = [param for group in self.param_groups for param in group["params"]]
            shared = None if process_group is True else process_group
            self._cluster = Cluster(shared, placement, overlap, self.layers, every, settings["block_size"])
        self._counter = Counter(settings["likelihood"], settings["reduction"])
        empirical = settings["fisher"] == "empirical"
        self._capture = Capture(
            model, self.layers, self._wanted, empirical=empirical, count=self._counter, cluster=self._cluster
        )
        LOG.info("%s\n%s", type(self).__name__, self.plan())

    # What torch asks of an optimizer

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """Momentum on natural gradients, or the fallback's rule."""
        if group["covered"] or group["fallback"] == "sgd":
            return sgd_rule(group)
        return RULES["adamw"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only while the optimizer is built: a layer's hooks and factors belong to the model as it was then."""
        if getattr(self, "_built", False):
            raise InvalidArgument(
                f"add_param_group: {type(self).__name__} takes its parameters from the model; build a new one from the "
                "changed model"
            )
        super().add_param_group(param_group)

    def __getstate__(self) -> NoReturn:
        raise InvalidState(
            f"{type(self).__name__} cannot be copied or pickled, because it hooks into its model; save state_dict() "
            "and build a new one from the copied model"
        )

    def plan(self) -> Plan:
        """What each trained parameter gets: a table of name, shape, treatment and detail."""
        group = self.param_groups[0]
        fallback, method = group["fallback"], type(self).__name__
        return make_plan(self._names, self.layers, self._reasons, method, fallback, group["block_size"])

    @property
    def damping(self) -> float:
        """The damping; set it to change it for all layers from the next inverses on."""
        return self.param_groups[0]["damping"]

    @damping.setter
    def damping(self, value: float) -> None:
        check_settings(None, {**self.param_groups[0], "damping": value}, ())
        for group in self.param_groups:
            group["damping"] = value

    # Curvature

    @property
    def curvature_due(self) -> bool:
        """Whether the coming step wants statistics of at least one layer."""
        return any(self._wanted(layer) for layer in self._moving())

    def _moving(self) -> list[AnyLayer]:
        return [layer for layer in self.layers if any(param.requires_grad for param in layer.params)]

    def _wanted(self, layer: AnyLayer) -> tuple[str, ...]:
        return self.policy.wanted(layer, self._layer_state(layer), self.steps + 1, self.param_groups[0])

    def _layer_state(self, layer: AnyLayer) -> dict[str, Any]:
        """A layer's entries in the state of its first parameter, without its label; there may be others beside them."""
        if self._cluster is not None and not self._cluster.mine(layer):
            return self.param_groups[0]["numbers"].get(layer.name, {})
        state, prefix = self.state.get(layer.slots[0].param) or {}, prefix_of(layer)
        if layer.label:
            return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        return state

    def update_curvature(
        self,
        *,
        loss: Tensor | None = None,
        logits: Tensor | None = None,
        closure: Callable[[], Any] | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Give the coming step its statistics, before ``loss.backward()``; several calls add up.

        With ``fisher="monte-carlo"`` targets are sampled from ``logits`` and pulled back; with "empirical" the coming
        backward brings the gradients, and this only counts the targets that the loss averages, ignored ones left out.

        Args:
            loss: the scalar loss of a forward pass of the model whose graph still exists.
            logits: the model's output from which it was computed, the classes on the last axis.
            closure: instead of both, a function that runs a fresh forward and returns the pair (loss, logits).
            mask: which targets count, of the logits' shape without the classes; the loss is then not needed. Without it
                those do to which the loss has a gradient that is not exactly zero.
        """
        if (closure is None) == (loss is None and logits is None):
            raise InvalidArgument("update_curvature: expected either loss= and logits= or closure=, not both or none")
        group = self.param_groups[0]
        with torch.enable_grad():
            if closure is not None:
                loss, logits = closure()
            loss = check_loss(loss) if mask is None else None
            logits = GaussNewtonBartlett([], 0, 0, group["likelihood"]).check_logits(logits)
            if group["fisher"] == "empirical":
                self._capture.used(loss, logits, mask, group["likelihood"])
            else:
                self._capture.sample(loss, logits, mask, group["seed"], self.steps + 1, group["likelihood"])

    # A step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; ``closure`` re-evaluates the model, calls ``backward`` and returns the loss."""
        with scaler_forgotten_on_error(self):
            if float(vars(self).get("found_inf") or 0.0):
                self._settled()
                return None
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            try:
                self._step()
            finally:
                self._settled()
            return loss

    _targets_of_all = False
    """Whether a process's loss is divided by the mean number of targets of all processes, and not by its own."""

    _step_supports_amp_scaling = True
    """A GradScaler then calls ``step`` also when it found infinity, with ``grad_scale`` and ``found_inf`` set."""

    def _step(self) -> None:
        work = list(self._work())
        if not work:
            raise InvalidState("step: no parameter has a gradient; call loss.backward() first")
        values = [self.checked_values(group) for group in self.param_groups]
        check_settings(None, self.param_groups[0], ())
        scale = vars(self).get("grad_scale")
        scale = 1.0 if scale is None else float(scale)
        wanted = self._wanted_layers({param for _, param, _ in work})
        found = self._statistics(wanted, self._loss_gradient(scale))
        parts = [part for statistics in found.values() for part in statistics.values()]
        grads = {param: grad for _, param, grad in work}
        if self._cluster is not None:
            if scale != 1:
                raise InvalidState(
                    "step: a GradScaler on several processes finds infinity on some of them only; use bfloat16 autocast"
                )
            grads = self._cluster.average_gradients(grads)
        if not self._agreed(lambda: self._finite(list(grads.values()), dict(enumerate(parts)))):  # type: ignore[arg-type]
            return
        grads = {param: widened(grad) if scale == 1 else widened(grad) * (1.0 / scale) for param, grad in grads.items()}
        fresh = dict[AnyLayer, dict[str, Any]]()
        if not self._agreed(lambda: bool(fresh.update(self._refreshed(found)) or True)):
            return
        directions = self._directions(grads, fresh)
        if not self._agreed(lambda: self._usable(directions)):
            return
        for layer, new in fresh.items():
            self._store(layer, new)
        if self._cluster is not None and wanted:
            self._share_numbers(fresh)
        moves = [(index, param, directions.get(param, grads[param])) for index, param, _ in work if param in grads]
        advance(self, moves, values, None)
        self._moved_by(grads)
        if self._cluster is not None:
            self._cluster.share_weights(param for _, param, _ in work)
        for group in self.param_groups:
            group["step"] += 1

    def _agreed(self, check: Callable[[], bool]) -> bool:
        """What a check says on this process, or on several: True if it is so on all, and an error if one has one."""
        if self._cluster is None:
            return check()
        error: NonFinite | None = None
        try:
            good = check()
        except NonFinite as found:
            good, error = False, found
        flag = torch.tensor([0.0 if good else 1.0, 0.0 if error is None else 1.0])
        worst = self._cluster.total(flag, dist.ReduceOp.MAX)
        if error is not None:
            raise error
        if worst[1]:
            raise NonFinite("the step was refused on another rank, whose message says why; nothing was changed")
        return not worst[0]

    def _share_numbers(self, fresh: Mapping[AnyLayer, dict[str, Any]]) -> None:
        """Tell the other ranks when this rank's layers are due."""
        assert self._cluster is not None
        numbers = {
            layer.name: {key: value for key, value in new.items() if isinstance(value, int | float | tuple)}
            for layer, new in fresh.items()
        }
        shared, known = self._cluster.share_numbers(numbers), self.param_groups[0]["numbers"]
        names = [*known, *(name for name in shared if name not in known)]
        merged = {name: {**known.get(name, {}), **shared.get(name, {})} for name in names}
        for group in self.param_groups:
            group["numbers"] = merged

    def _loss_gradient(self, scale: float) -> float:
        """What the captured gradients are gradients of, as a multiple of the summed losses."""
        if self.param_groups[0]["fisher"] != "empirical":
            return 1.0
        if self._grad_scaler is not None:
            scale = self._grad_scaler.get_scale()
        elif vars(self).get("found_inf") is not None and vars(self).get("grad_scale") is None and self.curvature_due:
            raise InvalidState(
                "step: the gradients were unscaled with scaler.unscale_, and the scale of those in the statistics is "
                f"not known; construct {type(self).__name__} with grad_scaler=scaler, or use fisher='monte-carlo'"
            )
        number = self._capture.sums.number
        if self._cluster is not None and self._targets_of_all:
            number = float(self._cluster.total(torch.tensor(number, dtype=torch.float64))) / self._cluster.size
        return scale / (number or 1.0)

    def _wanted_layers(self, moving: set[Tensor]) -> dict[AnyLayer, tuple[str, ...]]:
        """What this step wants of which layers; only of those that have gradients."""
        layers = [layer for layer in self.layers if not moving.isdisjoint(layer.params)]
        return {layer: wanted for layer, wanted in zip(layers, map(self._wanted, layers), strict=True) if wanted}

    def _statistics(
        self, wanted: Mapping[AnyLayer, tuple[str, ...]], loss_gradient: float
    ) -> dict[AnyLayer, dict[str, Tensor]]:
        """The statistics that this step wants: of this process's layers, if there are several."""
        sums = self._capture.sums
        for layer in wanted:
            if layer not in sums.outputs:
                self._explain_missing(layer)
        if wanted and sums.number == 0 and self._cluster is None:
            raise InvalidState("update_curvature: every target is ignored; skip batches that hold only padding")
        if self._cluster is not None:
            return self._cluster.statistics(sums, wanted, loss_gradient)
        parts = {layer: sums.statistics(layer, loss_gradient) for layer in wanted}
        return {la: {name: part for name, part in parts[la].items() if name in names} for la, names in wanted.items()}

    def _explain_missing(self, layer: AnyLayer) -> NoReturn:
        if self.param_groups[0]["fisher"] != "empirical" and not self._capture.sums.calls:
            raise InvalidState(f"curvature is due at step {self.steps + 1}: {self._due_hint}")
        raise InvalidState(
            f"layer {layer.name} has a gradient, but its forward was not seen: it was compiled, or its weight is used "
            f"outside of its own forward, or update_curvature came too late; leave it out with skip=[{layer.name!r}]"
        )

    def _refreshed(self, found: Mapping[AnyLayer, dict[str, Tensor]]) -> dict[AnyLayer, dict[str, Any]]:
        """New entries of the layers' state, from statistics and from inverses that are due."""
        group, fresh = self.param_groups[0], dict[AnyLayer, dict[str, Any]]()
        settings = blocks.Settings(group["damping"], group["inverse"], group["block_size"])
        for layer in self._own_layers():
            state = self._layer_state(layer)
            new, invert = self.policy.fold(layer, state, found.get(layer, {}), self.steps + 1, group)
            a, g = (new.get(name, state.get(name)) for name in ("factor_a", "factor_g"))
            if invert and a is not None and g is not None:
                inverses, used = blocks.inverted(layer, a, g, settings)
                new |= {**inverses, "damping": used}
            if new:
                fresh[layer] = new
        return fresh

    def _directions(
        self, grads: Mapping[Tensor, Tensor], fresh: Mapping[AnyLayer, dict[str, Any]]
    ) -> dict[Tensor, Tensor]:
        """Natural gradients by parameter, within the trust region."""
        directions: dict[Tensor, Tensor] = {}
        for layer in self._own_layers():
            if not any(slot.param in grads for slot in layer.slots):
                continue
            state = self._layer_state(layer)
            if layer in fresh:
                state = {**state, **fresh[layer]}
            given = [self._given(slot, grads) for slot in layer.slots]
            parts = blocks.natural(layer, given, state, self.param_groups[0]["damping"])
            for slot, part in zip(layer.slots, parts, strict=True):
                if slot.whole:
                    directions[slot.param] = part
                else:
                    whole = directions.setdefault(slot.param, torch.zeros_like(grads[slot.param]))
                    whole[slot.rows] = part
        directions = {param: direction for param, direction in directions.items() if param in grads}
        return self._bounded(directions, grads)

    def _given(self, slot: Slot, grads: Mapping[Tensor, Tensor]) -> Tensor:
        """A slot's gradient; of a parameter that has none, zeros."""
        grad = grads.get(slot.param)
        grad = torch.zeros_like(widened(slot.param)) if grad is None else grad
        return grad if slot.whole else grad[slot.rows]

    def _bounded(self, directions: dict[Tensor, Tensor], grads: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        clip = self.param_groups[0]["kl_clip"]
        if clip is None:
            return directions
        change = torch.zeros((), dtype=torch.float64, device=next(iter(self._names)).device)
        for group in self.param_groups:
            slopes = [
                trust_region.inner_product(xp, directions[param], grads[param])
                for param in group["params"]
                if param in directions
            ]
            if slopes:
                change = change + float(group["lr"]) ** 2 * torch.stack(slopes).sum()
        if self._cluster is not None and self._cluster.placement != "every":
            change = self._cluster.total(change)
        nu = trust_region.kl_scale(xp, change, clip=clip)
        scaled = torch._foreach_mul(list(directions.values()), nu) if directions else ()
        return dict(zip(directions, scaled, strict=True))

    def _own_layers(self) -> list[AnyLayer]:
        """The layers that this process works on: all, if there is one."""
        return self.layers if self._cluster is None else [layer for layer in self.layers if self._cluster.mine(layer)]

    def _usable(self, directions: Mapping[Tensor, Tensor]) -> bool:
        """Whether every direction is finite; otherwise raise, or return False if that was chosen."""
        if self.param_groups[0]["nonfinite"] == "ignore":
            return True
        place = first_nonfinite(list(directions.values()))
        if place is not None and self.param_groups[0]["nonfinite"] == "raise":
            name = self._names[list(directions)[place]]
            raise NonFinite(
                f"the natural gradient of {name!r} is not finite; nothing was changed. Raise damping, "
                "or construct the optimizer with nonfinite='skip' to pass over such steps"
            )
        return place is None

    def _store(self, layer: AnyLayer, new: Mapping[str, Any]) -> None:
        state, prefix = self.state[layer.params[0]], prefix_of(layer)
        for key, value in new.items():
            state[prefix + key] = value

    def _moved_by(self, grads: Mapping[Tensor, Tensor]) -> None:
        """What a method does after the parameters moved, ``grads`` being what they moved by."""

    def _settled(self) -> None:
        if getattr(self, "_built", False):
            self._capture.forget()
            if self._cluster is not None:
                self._cluster.forget()

    # Checkpoints

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        super()._check_state(state_dict)
        check_layers(self, state_dict)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load what ``state_dict`` of the same optimizer returned; anything else is refused and nothing is changed."""
        super().load_state_dict(state_dict)
        restore(self, state_dict)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, between two steps: factors, inverses, intervals; gathered statistics cannot be saved."""
        if self._capture.sums.outputs or self._capture.sums.calls:
            raise InvalidState("state_dict: statistics were gathered and their step is yet to come; save after step()")
        return super().state_dict()
