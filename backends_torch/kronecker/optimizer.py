"""The optimizer around the Kronecker preconditioner: statistics, inverses, trust region, then a momentum step.

In a step, nothing is written before everything is known to be finite: new statistics and inverses are worked out beside
the old ones, directions from them, and only then state and parameters change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from hessiod.backends.kronecker.settings import CHECKED, check_settings
from hessiod.backends_torch.adapter import RuleOptimizer
from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.curvature import GaussNewtonBartlett, check_loss
from hessiod.backends_torch.fast import advance
from hessiod.backends_torch.kronecker import blocks
from hessiod.backends_torch.kronecker.alone import Alone
from hessiod.backends_torch.kronecker.averages import Averages
from hessiod.backends_torch.kronecker.capture import Capture
from hessiod.backends_torch.kronecker.counter import Counter
from hessiod.backends_torch.kronecker.directions import (
    Directions,
    NaturalGradients,
    first_unusable,
    trust_scale,
    wide,
)
from hessiod.backends_torch.kronecker.discover import AnyLayer, Found, discover
from hessiod.backends_torch.kronecker.distributed import Cluster, check_alone, check_whole
from hessiod.backends_torch.kronecker.due import Due
from hessiod.backends_torch.kronecker.groups import check_model, grouped, settings_in, split
from hessiod.backends_torch.kronecker.plan import Plan, make_plan
from hessiod.backends_torch.kronecker.policies import Fixed
from hessiod.backends_torch.kronecker.states import LayerStates, check_layers, restore
from hessiod.backends_torch.second_order import DUE_HINT, scaler_forgotten_on_error
from hessiod.core.errors import InvalidArgument, InvalidState, NonFinite
from hessiod.core.rule import Rule
from hessiod.core.rules import RULES
from hessiod.core.sgd import sgd_rule

LOG = logging.getLogger("hessiod")


class KroneckerOptimizer(RuleOptimizer):
    """What K-FAC, SP-NGD and THOR share; each is a policy and a signature.

    Parameters in covered layers move along their natural gradient, with momentum; the others follow ``fallback``, in
    groups of their own with ``fallback_lr``. :meth:`plan` says which is which.

    Args:
        model, params: as the methods document them.
        given: all other arguments by name, as :func:`~hessiod.backends_torch.kronecker.groups.arguments` finds them.
    """

    policy: Any = Fixed()

    _due_hint = DUE_HINT

    _built = False

    def __init__(self, model: nn.Module, params: Any, given: Mapping[str, Any]) -> None:
        check_model(model)
        settings = settings_in(given)
        check_settings(settings, given["skip"])
        check_alone(given["process_group"])
        check_whole(model)
        groups = grouped(model, params, settings)
        found = self._found(model, groups, given["skip"])
        self._covered = covered = {param for layer in found.layers for param in layer.params}
        base = {**settings, "covered": True, "first_lr": settings["lr"], "numbers": {}}
        kept = {name: given[name] for name in ("maximize", "nonfinite", "missing")}
        super().__init__(list(split(groups, covered, settings["fallback_lr"])), base, **kept)
        self._built, self._grad_scaler, self._checked = True, given["grad_scaler"], list[Any]()
        self._ranks = self._processes(given)
        self._states = LayerStates(self, self._ranks.mine)
        group_of = {param: place for place, group in enumerate(self.param_groups) for param in group["params"]}
        self._natural = NaturalGradients(self._ranks.own, group_of)
        self._due = Due(self._wanted)
        self._counter = Counter(settings["likelihood"], settings["reduction"])
        empirical = settings["fisher"] == "empirical"
        self._capture = Capture(
            model, self.layers, self._due, empirical=empirical, count=self._counter, ranks=self._ranks
        )
        self._look_ahead()
        LOG.info("%s\n%s", type(self).__name__, self.plan())

    def _found(self, model: nn.Module, groups: list[dict[str, Any]], skip: Any) -> Found:
        found = discover(model, {param for group in groups for param in group["params"]}, tuple(skip))
        if not found.layers:
            reasons = ", ".join(sorted(set(found.reasons.values()))) or "it has no trained parameters"
            raise InvalidArgument(
                f"model: found {type(model).__name__} with no layer that {type(self).__name__} covers ({reasons}), "
                "expected at least one Linear, Conv, Embedding, MultiheadAttention or normalisation layer; use AdamW"
            )
        self.layers, self._names, self._reasons = found.layers, found.names, found.reasons
        return found

    def _processes(self, given: Mapping[str, Any]) -> Alone | Cluster:
        group = given["process_group"]
        if group in (None, False):
            return Alone(self.layers)
        every = [param for group in self.param_groups for param in group["params"]]
        block = self.param_groups[0]["block_size"]
        return Cluster(
            None if group is True else group, given["placement"], given["overlap"], self.layers, every, block
        )

    # What torch asks of an optimizer

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """Momentum on natural gradients, or the fallback's rule."""
        if group["covered"] or group["fallback"] == "sgd":
            return sgd_rule(group)
        return RULES["adamw"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Only while the optimizer is built: a layer's hooks and factors belong to the model as it was then."""
        if self._built:
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
        check_settings({**self.param_groups[0], "damping": value}, ())
        for group in self.param_groups:
            group["damping"] = value

    def layer_state(self, layer: AnyLayer) -> Mapping[str, Any]:
        """A layer's factors, inverses and counters; there may be other entries beside them."""
        return self._states[layer]

    # Curvature

    @property
    def curvature_due(self) -> bool:
        """Whether the coming step wants statistics of at least one layer."""
        return any(param.requires_grad for layer in self._due() for param in layer.params)

    def _wanted(self) -> dict[AnyLayer, tuple[str, ...]]:
        states, step, group, wanted = self._states, self.steps + 1, self.param_groups[0], self.policy.wanted
        return {layer: names for layer in self.layers if (names := wanted(layer, states[layer], step, group))}

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
            if self._overflowed():
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

    def _overflowed(self) -> bool:
        """Whether a GradScaler found infinity, here or on another rank."""
        found = vars(self).get("found_inf")
        return found is not None and self._ranks.largest(float(found)) > 0

    def _step(self) -> None:
        work = self._work()
        if not work:
            raise InvalidState("step: no parameter has a gradient; call loss.backward() first")
        values = [self.checked_values(group) for group in self.param_groups]
        self._check_settings()
        scale = vars(self).get("grad_scale")
        scale, raw = 1.0 if scale is None else float(scale), dict(pair for members in work for pair in members.pairs())
        wanted = self._due.among(raw)
        found = self._statistics(wanted, scale)
        grads = self._ranks.average_gradients(wide(raw, scale))
        seen = grads if self._ranks.spread else raw
        parts: Any = dict(enumerate(part for statistics in found.values() for part in statistics.values()))
        first = seen if wanted else {param: seen[param] for param in seen if param not in self._covered}
        if not self._ranks.agreed(lambda: self._finite([Arrays(list(first.values()))], parts) or None):
            return
        fresh = self._ranks.agreed(lambda: self._refreshed(found)) or {}
        rates = [float(group["lr"]) for group in self.param_groups]
        directions = self._directions(grads, fresh, rates)
        ways = {**grads, **directions.found}
        moves = [members.along(ways) for members in work]
        change = self._ranks.total(directions.change_along(moves, grads, rates))
        nu = trust_scale(change, self.param_groups[0]["kl_clip"])
        usable = self._ranks.agreed(lambda: self._usable(seen, directions.found, nu))
        if usable is None:
            return
        for layer, new in fresh.items():
            self._states.store(layer, new)
        if wanted:
            self._ranks.share_numbers(fresh, self.param_groups)
        scales = [usable if group["covered"] else 1.0 for group in self.param_groups]
        advance(self, moves, values, None, scales)
        self._moved_by(grads)
        self._ranks.share_weights(list(raw))
        for group in self.param_groups:
            group["step"] += 1

    def _check_settings(self) -> None:
        """Look at the settings if they are not those of the last step: schedulers and users change them in place."""
        group = self.param_groups[0]
        now = [group.get(name) for name in CHECKED]
        if now != self._checked:
            check_settings(group, ())
            self._checked = now

    def _statistics(
        self, wanted: Mapping[AnyLayer, tuple[str, ...]], scale: float
    ) -> dict[AnyLayer, dict[str, Tensor]]:
        """The statistics that this step wants: of this process's layers, if there are several."""
        if not wanted:
            return {}
        sums = self._capture.sums
        for layer in wanted:
            if layer not in sums.outputs:
                self._explain_missing(layer)
        return self._ranks.statistics(sums, wanted, self._loss_gradient(scale))

    def _explain_missing(self, layer: AnyLayer) -> NoReturn:
        if self.param_groups[0]["fisher"] != "empirical" and not self._capture.sums.calls:
            raise InvalidState(f"curvature is due at step {self.steps + 1}: {self._due_hint}")
        raise InvalidState(
            f"layer {layer.name} has a gradient, but its forward was not seen: it was compiled, or its weight is used "
            f"outside of its own forward, or update_curvature came too late; leave it out with skip=[{layer.name!r}]"
        )

    def _loss_gradient(self, scale: float) -> float:
        """What the captured gradients are gradients of, as a multiple of the summed losses."""
        if self.param_groups[0]["fisher"] != "empirical":
            return 1.0
        if self._grad_scaler is not None:
            scale = self._grad_scaler.get_scale()
        elif vars(self).get("found_inf") is not None and vars(self).get("grad_scale") is None:
            raise InvalidState(
                "step: the gradients were unscaled with scaler.unscale_, and the scale of those in the statistics is "
                f"not known; construct {type(self).__name__} with grad_scaler=scaler, or use fisher='monte-carlo'"
            )
        number = self._capture.sums.number
        return scale / ((self._ranks.mean(number) if self._targets_of_all else number) or 1.0)

    def _refreshed(self, found: Mapping[AnyLayer, dict[str, Tensor]]) -> dict[AnyLayer, dict[str, Any]]:
        """New entries of the layers' state, from statistics and from inverses that are due."""
        group, step = self.param_groups[0], self.steps + 1
        if not found and not self.policy.inverts(step, group):
            return {}
        layers = self._ranks.own if self.policy.inverts(step, group) else [la for la in self._ranks.own if la in found]
        settings = blocks.Settings(group["damping"], group["inverse"], group["block_size"])
        fresh, factors = dict[AnyLayer, dict[str, Any]](), dict[AnyLayer, tuple[Tensor, Tensor]]()
        averages = Averages()
        for layer in layers:
            state = self._states[layer]
            new, invert = self.policy.fold(layer, state, found.get(layer, {}), step, group, averages.put_off)
            a, g = (new.get(name, state.get(name)) for name in ("factor_a", "factor_g"))
            if invert and a is not None and g is not None:
                factors[layer] = a, g
            if new:
                fresh[layer] = new
        averages.finish()
        for layer, inverses in blocks.inverted(factors, settings).items():
            fresh[layer] = {**fresh.get(layer, {}), **inverses}
        return fresh

    def _directions(
        self, grads: Mapping[Tensor, Tensor], fresh: Mapping[AnyLayer, Mapping[str, Any]], rates: Sequence[float]
    ) -> Directions:
        def state_of(layer: AnyLayer) -> Mapping[str, Any]:
            return {**self._states[layer], **fresh[layer]} if layer in fresh else self._states[layer]

        return self._natural(grads, state_of, self.param_groups[0]["damping"], rates)

    def _usable(self, grads: Mapping[Tensor, Tensor], directions: Mapping[Tensor, Tensor], nu: float) -> float | None:
        """What directions are multiplied by; an error if one is not finite, or None if passing over was chosen."""
        choice = self.param_groups[0]["nonfinite"]
        if nu > 0 or choice == "ignore":
            return nu
        if not self._finite([Arrays(list(grads.values()))], None):
            return None
        param = first_unusable(directions)
        if param is None:
            return 0.0  # finite directions so long that their inner product is not
        if choice == "skip":
            return None
        raise NonFinite(
            f"the natural gradient of {self._names[param]!r} is not finite; nothing was changed. Raise damping, "
            "or construct the optimizer with nonfinite='skip' to pass over such steps"
        )

    def _moved_by(self, grads: Mapping[Tensor, Tensor]) -> None:
        """What a method does after the parameters moved, ``grads`` being what they moved by."""

    def _settled(self) -> None:
        if self._built:
            self._capture.forget()
            self._ranks.forget()
            self._look_ahead()

    def _look_ahead(self) -> None:
        """Hook the layers for the coming step; what it wants is asked anew there, after schedulers and the user."""
        self._due.forget()
        self._capture.arm()
        self._due.forget()

    # Checkpoints

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        super()._check_state(state_dict)
        check_layers(self, state_dict)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load what ``state_dict`` of the same optimizer returned; anything else is refused and nothing is changed."""
        super().load_state_dict(state_dict)
        restore(self, state_dict)
        self._look_ahead()

    def state_dict(self) -> dict[str, Any]:
        """The whole state, between two steps: factors, inverses, intervals; gathered statistics cannot be saved."""
        if self._capture.sums.outputs or self._capture.sums.calls:
            raise InvalidState("state_dict: statistics were gathered and their step is yet to come; save after step()")
        return super().state_dict()
