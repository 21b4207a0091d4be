"""One adapter from any rule of core/ to ``torch.optim.Optimizer``.

Everything that must survive ``state_dict``, ``deepcopy`` and pickling lives where torch keeps it: per-parameter slots
in ``state``, everything else in ``param_groups``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from hessiod.backends_torch import namespace as xp
from hessiod.core.errors import InvalidArgument, InvalidState, NonFinite
from hessiod.core.rule import Kernel, Rule

Estimates = Mapping[Tensor, Tensor]


def flat_hyperparameters(group: Mapping[str, Any], rule: Rule) -> dict[str, float]:
    """A group's hyperparameters under the rule's names: ``betas`` becomes beta1 and beta2, tensors become floats."""
    values = dict(group)
    if "betas" in group:
        betas = group["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise InvalidArgument(f"betas: found {betas!r}, expected a pair of numbers in [0, 1), such as (0.9, 0.999)")
        values["beta1"], values["beta2"] = betas
    return {
        name: values[name].item() if isinstance(values[name], Tensor) else values[name] for name in rule.hyperparameters
    }


def apply(kernel: Kernel, arrays: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Run a kernel and write its results into the arrays they belong to."""
    scalars = kernel.scalars_from(values)
    results = kernel.function(xp, *[arrays[name] for name in kernel.operands], **scalars)
    for name, result in zip(kernel.results, results, strict=True):
        arrays[name].copy_(result)


def counts_of(rule: Rule) -> tuple[str, ...]:
    """The whole numbers that are kept for each parameter: its steps and, with curvature, the estimates folded in."""
    return ("step",) if rule.refresh is None else ("step", "refreshes")


class RuleOptimizer(torch.optim.Optimizer):
    """A rule with torch's conventions: param groups, schedulers, ``state_dict``, ``maximize``, closures.

    Args:
        params: parameters, named parameters, or groups of either, as for every torch optimizer.
        hyperparameters: the rule's, under torch's names (``betas`` for beta1 and beta2). They are each group's own.
        maximize: climb instead of descend.
        nonfinite: what a step does when a gradient or a curvature estimate holds NaN or infinity: "raise"
            (:class:`~hessiod.core.errors.NonFinite`) or "skip". Parameters and state stay as they were either way.
        missing: what a step does with a parameter that requires a gradient and has none: "raise" or "skip".
            Parameters frozen by ``requires_grad_(False)`` are always passed over.

    A subclass says which rule a group follows; everything else is here.
    """

    def __init__(
        self,
        params: Any,
        hyperparameters: Mapping[str, Any],
        *,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
    ) -> None:
        for name, choice in (("nonfinite", nonfinite), ("missing", missing)):
            if choice not in ("raise", "skip"):
                raise InvalidArgument(f"{name}: found {choice!r}, expected 'raise' or 'skip'")
        if not isinstance(params, Tensor | Mapping):
            params = list(params)
            if not params:
                raise InvalidArgument("params: found an empty list, expected parameters; pass model.parameters()")
        settings = {"maximize": maximize, "nonfinite": nonfinite, "missing": missing, "step": 0}
        super().__init__(params, {**hyperparameters, **settings})

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """The rule that a group follows."""
        raise NotImplementedError

    def values_of(self, group: Mapping[str, Any]) -> dict[str, float]:
        """The hyperparameters that a group's kernels see."""
        return flat_hyperparameters(group, self.rule_of(group))

    @property
    def steps(self) -> int:
        """How many steps have been taken."""
        return self.param_groups[0]["step"]

    # Groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch; a group that the rule cannot take is refused and not added."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group["step"] = self.steps
        try:
            self._check_group(group)
        except InvalidArgument:
            self.param_groups.pop()
            raise

    def _check_group(self, group: Mapping[str, Any]) -> None:
        rule = self.rule_of(group)
        rule.check(self.values_of(group))
        for position, param in enumerate(group["params"]):
            if param.is_complex() or not param.is_floating_point() or param.layout != torch.strided:
                raise InvalidArgument(
                    f"{self._name(group, position)}: found a {param.dtype} tensor with layout {param.layout}, expected "
                    "a dense real floating-point parameter; leave it to another optimizer or view a complex one as real"
                )
            eps = self.values_of(group).get("eps", 0.0)
            if eps and torch.tensor(eps, dtype=param.dtype) == 0:
                raise InvalidArgument(
                    f"eps: found {eps}, which is zero in {param.dtype}, the dtype of {self._name(group, position)}; "
                    "keep parameters in float32 (autocast casts the arithmetic, not them), or give a larger eps"
                )

    def _name(self, group: Mapping[str, Any], position: int) -> str:
        names = group.get("param_names")
        known = f"{names[position]!r} " if names else ""
        index = next((i for i, other in enumerate(self.param_groups) if other is group), 0)
        shape = tuple(group["params"][position].shape)
        return f"parameter {known}(group {index}, position {position}, shape {shape})"

    # A step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; ``closure`` re-evaluates the model, calls ``backward`` and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = list(self._work())
        if not work:
            raise InvalidState("step: no parameter has a gradient; call loss.backward() first")
        values = [self._checked_values(group) for group in self.param_groups]
        estimates = self._estimates()
        if self._finite([grad for *_, grad in work], estimates):
            for index, param, grad in work:
                self._update(self.param_groups[index], param, grad, values[index], estimates)
            for group in self.param_groups:
                group["step"] += 1
        self._settled()
        return loss

    def _work(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Group index, parameter and gradient of everything that moves in this step."""
        for index, group in enumerate(self.param_groups):
            for position, param in enumerate(group["params"]):
                if not param.requires_grad:
                    continue
                if param.grad is None:
                    if group["missing"] == "raise":
                        raise InvalidState(
                            f"{self._name(group, position)} has no gradient; call loss.backward() first, freeze it "
                            "with requires_grad_(False), or construct the optimizer with missing='skip'"
                        )
                    continue
                if param.grad.layout != torch.strided:
                    raise InvalidArgument(
                        f"{self._name(group, position)} has a gradient with layout {param.grad.layout}, expected a "
                        "dense one; construct its nn.Embedding with sparse=False"
                    )
                yield index, param, param.grad

    def _checked_values(self, group: Mapping[str, Any]) -> dict[str, float]:
        values = self.values_of(group)
        self.rule_of(group).check(values)
        return values

    def _finite(self, grads: list[Tensor], estimates: Estimates | None) -> bool:
        """Whether everything that enters the step is finite; otherwise raise, or return False if that was chosen.

        The infinity norm is infinite or NaN exactly when an entry is, and cannot overflow.
        """
        for what, found in (("gradient", grads), ("curvature estimate", (estimates or {}).values())):
            tensors = [tensor for tensor in found if tensor.numel()]
            if tensors and not torch.isfinite(get_total_norm(tensors, float("inf"))):
                self._settled()
                if self.param_groups[0]["nonfinite"] == "skip":
                    return False
                raise NonFinite(
                    f"{self._first_nonfinite(tensors, what)}; nothing was changed. Lower lr, clip gradients, or "
                    "construct the optimizer with nonfinite='skip' to pass over such steps"
                )
        return True

    def _first_nonfinite(self, tensors: list[Tensor], what: str) -> str:
        bad = next(tensor for tensor in tensors if not torch.isfinite(tensor).all())
        for group in self.param_groups:
            for position, param in enumerate(group["params"]):
                if param.grad is bad:
                    return f"the {what} of {self._name(group, position)} holds NaN or infinity"
        return f"a {what} of shape {tuple(bad.shape)} holds NaN or infinity"

    def _update(
        self,
        group: Mapping[str, Any],
        param: Tensor,
        grad: Tensor,
        values: Mapping[str, float],
        estimates: Estimates | None,
    ) -> None:
        rule = self.rule_of(group)
        state = self._state(rule, param)
        state["step"] += 1
        arrays = {**state, "param": param, "grad": -grad if group["maximize"] else grad}
        if rule.refresh is not None and estimates is not None:
            state["refreshes"] += 1
            arrays["estimate"] = self._estimate_for(group, estimates[param])
            apply(rule.refresh, arrays, {**values, **state})
        apply(rule.step, arrays, {**values, **state})

    def _estimate_for(self, group: Mapping[str, Any], estimate: Tensor) -> Tensor:
        """A parameter's curvature estimate as its group's rule wants it."""
        return estimate

    def _state(self, rule: Rule, param: Tensor) -> dict[str, Any]:
        state = self.state[param]
        for count in counts_of(rule):
            state.setdefault(count, 0)
        for slot in rule.slots:
            if slot not in state:  # a new parameter, or a rule that came with a changed hyperparameter
                state[slot] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state

    def _estimates(self) -> Estimates | None:
        """Curvature estimates that this step folds in, for rules that have any."""
        return None

    def _settled(self) -> None:
        """Forget what was gathered for one step: it is over, taken or not, or the state was replaced."""

    # Checkpoints

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load what ``state_dict`` of the same optimizer returned; anything else is refused and nothing is changed."""
        self._check_state(state_dict)
        super().load_state_dict(dict(state_dict))
        self._settled()

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise InvalidArgument(
                f"state_dict: found a {type(state_dict).__name__} without 'state' and 'param_groups', expected what "
                f"state_dict() of a {type(self).__name__} returned"
            )
        saved, state = state_dict["param_groups"], state_dict["state"]
        found, expected = ([len(group.get("params", ())) for group in groups] for groups in (saved, self.param_groups))
        if found != expected:
            raise InvalidArgument(
                f"state_dict: found groups of {found} parameters, expected {expected}; construct the optimizer with "
                "the same groups"
            )
        for theirs, ours in zip(saved, self.param_groups, strict=True):
            missing = sorted(set(self.defaults) - set(theirs))
            if missing:
                raise InvalidArgument(
                    f"state_dict: its groups lack {', '.join(missing)}; it was not written by {type(self).__name__}"
                )
            self._checked_values(theirs)
            for number, param in zip(theirs["params"], ours["params"], strict=True):
                self._check_slots(self.rule_of(theirs), number, state.get(number), param)
        if saved[0]["step"] and not state:
            raise InvalidArgument(f"state_dict: found no state after {saved[0]['step']} steps; the checkpoint is torn")

    def _check_slots(self, rule: Rule, number: int, state: Mapping[str, Any] | None, param: Tensor) -> None:
        if not state:
            return  # a parameter that has not moved yet
        for slot in (*counts_of(rule), *rule.slots):
            if slot not in state:
                raise InvalidArgument(
                    f"state_dict: parameter {number} has no {slot!r}; it was not written by {type(self).__name__}"
                )
            shape = tuple(getattr(state[slot], "shape", ()))
            if slot in rule.slots and shape != tuple(param.shape):
                raise InvalidArgument(
                    f"state_dict: {slot!r} of parameter {number} has the shape {shape}, expected "
                    f"{tuple(param.shape)}; it belongs to another model"
                )

    def _movable(self) -> Iterable[Tensor]:
        return [param for group in self.param_groups for param in group["params"] if param.requires_grad]
