"""The optimizer around the Kronecker preconditioner, as torch and its users see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from hessiod.backends.kronecker.settings import check_settings
from hessiod.backends_torch.adapter import RuleOptimizer
from hessiod.backends_torch.curvature import check_loss
from hessiod.backends_torch.derivatives.gauss_newton import checked_output
from hessiod.backends_torch.kronecker.capture import Capture
from hessiod.backends_torch.kronecker.counter import Counter
from hessiod.backends_torch.kronecker.covering import covered_layers, processes
from hessiod.backends_torch.kronecker.directions import NaturalGradients
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.distributed import check_alone, check_whole
from hessiod.backends_torch.kronecker.due import Due
from hessiod.backends_torch.kronecker.groups import check_model, grouped, settings_in, split
from hessiod.backends_torch.kronecker.plan import Plan, make_plan
from hessiod.backends_torch.kronecker.policies import Fixed
from hessiod.backends_torch.kronecker.states import LayerStates, check_layers, restore
from hessiod.backends_torch.kronecker.stepping import settings_now, take_step
from hessiod.backends_torch.second_order import DUE_HINT, scaler_forgotten_on_error
from hessiod.core.errors import InvalidArgument, InvalidState
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
        found = covered_layers(type(self).__name__, model, groups, given["skip"])
        self.layers, self._names, self._reasons = found.layers, found.names, found.reasons
        self._covered = covered = {param for layer in found.layers for param in layer.params}
        base = {**settings, "covered": True, "first_lr": settings["lr"], "numbers": {}}
        kept = {name: given[name] for name in ("maximize", "nonfinite", "missing")}
        super().__init__(list(split(groups, covered, settings["fallback_lr"])), base, **kept)
        self._built, self._grad_scaler, self._checked = True, given["grad_scaler"], list[Any]()
        self._ranks = processes(given, self.layers, self.param_groups)
        self._states = LayerStates(self, self._ranks.mine)
        group_of = {param: place for place, group in enumerate(self.param_groups) for param in group["params"]}
        self._natural = NaturalGradients(self._ranks.own, group_of)
        self._due = Due(self._wanted, lambda: settings_now(self))
        self._counter = Counter(settings["likelihood"], settings["reduction"])
        empirical = settings["fisher"] == "empirical"
        self._capture = Capture(
            model, self.layers, self._due, empirical=empirical, count=self._counter, ranks=self._ranks
        )
        self._look_ahead()
        LOG.info("%s\n%s", type(self).__name__, self.plan())

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
            logits = checked_output(logits, "logits", group["likelihood"])
            if group["fisher"] == "empirical":
                self._capture.used(loss, logits, mask, group["likelihood"])
            else:
                self._capture.sample(loss, logits, mask, group["seed"], self.steps + 1, group["likelihood"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop gradients, and with the empirical Fisher the statistics that the same backwards left."""
        super().zero_grad(set_to_none)
        if self._capture.empirical and self._capture.sums.outputs:
            self._capture.sums = self._capture.sums.without_backwards()
            self._ranks.forget()

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
        take_step(self)

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
        self._due.doubt()

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
