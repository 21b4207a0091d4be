"""One adapter from any rule of core/ to ``torch.optim.Optimizer``.

Everything that must survive ``state_dict``, ``deepcopy`` and pickling lives where torch keeps it: per-parameter slots
in ``state``, everything else in ``param_groups``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from math import isfinite
from operator import attrgetter, is_, is_not
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from hessiod.backends import diagnostics
from hessiod.backends_torch import capturable, clipping
from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.diagnostics import changes, share
from hessiod.backends_torch.fast import Members, advance, first_nonfinite
from hessiod.backends_torch.precision import restore_wide_slots, zeros_for
from hessiod.backends_torch.states import check_state, counts_of
from hessiod.core.clipping import check_clip_grad
from hessiod.core.errors import InvalidArgument, InvalidState, NonFinite
from hessiod.core.rule import Rule

Estimates = Mapping[Tensor, Tensor]


def flat_hyperparameters(
    group: Mapping[str, Any], rule: Rule, number: Callable[[Tensor], Any] = Tensor.item
) -> dict[str, Any]:
    """A group's hyperparameters under the rule's names: ``betas`` becomes beta1 and beta2, tensors become floats, or
    what ``number`` makes of them.
    """
    values = dict(group)
    if "betas" in group:
        betas = group["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise InvalidArgument(f"betas: found {betas!r}, expected a pair of numbers in [0, 1), such as (0.9, 0.999)")
        values["beta1"], values["beta2"] = betas
    return {
        name: number(values[name]) if isinstance(values[name], Tensor) else values[name]
        for name in rule.hyperparameters
    }


class RuleOptimizer(torch.optim.Optimizer):
    """A rule with torch's conventions: param groups, schedulers, ``state_dict``, ``maximize``, closures.

    Args:
        params: parameters, named parameters, or groups of either, as for every torch optimizer. A group may be empty,
            as there; an optimizer without any parameter is refused.
        hyperparameters: the rule's, under torch's names (``betas`` for beta1 and beta2). They are each group's own.
        maximize: climb instead of descend.
        nonfinite: what a step does when a gradient or a curvature estimate holds NaN or infinity: "raise"
            (:class:`~hessiod.core.errors.NonFinite`) or "skip". Parameters and state stay as they were either way.
            With "ignore" nothing looks, as in torch's own optimizers, and NaN spreads: for gradients that were
            already looked at. Looking means reading them once more, a fifth of a step of a large model.
        capturable: whether a step can go into a CUDA graph, as in torch's optimizers: it asks the device nothing.
            Counts are tensors on the device, and ``lr`` may be one, which can be filled with another number between
            replays; a number is in the graph for good. NaN can then not raise: ``nonfinite`` must be "skip", which
            decides on the device, or "ignore". Nor can a step say that curvature is due, once one has been taken: ask
            ``curvature_due``, which waits for the device, and take those steps outside of the graph. Slower where
            nothing is captured. One device a group, and no sharded parameters.
        clip_grad: the largest norm of all gradients together. Larger ones are multiplied by ``clip_grad / norm`` as
            they are read, and ``.grad`` stays as it is. It stands in the place of ``torch.nn.utils.clip_grad_norm_``,
            which reads gradients twice and writes them, and of the search for NaN. The norm of the last step is in
            ``grad_norm``. Curvature is not clipped.
        missing: what a step does with a parameter that requires a gradient and has none: "raise" or "skip".
            Parameters frozen by ``requires_grad_(False)`` are always passed over.

    ``maximize`` and ``missing`` may differ between groups; ``nonfinite`` may not, because a step is taken whole or not.

    float16 and bfloat16 parameters have their state in float32; the rule runs in float32 and its result is rounded
    once, into the parameter. A step smaller than half of a parameter's last digit is lost there: for long runs keep
    parameters in float32 and let autocast choose the arithmetic.

    A subclass says which rule a group follows; everything else is here.
    """

    signed_curvature = True
    """Whether the curvature slot keeps the estimates' sign."""

    shared: tuple[str, ...] = ("nonfinite", "capturable", "clip_grad")
    """Settings of the whole optimizer. They are kept in the groups so that ``state_dict`` holds them."""

    grad_norm: Any = None
    """With ``clip_grad``: the norm of the last step's gradients before they were clipped; a tensor if capturable."""

    _watching = False
    _update_norms: list[float] | None = None

    _inverse_scale = 1.0
    """What gradients are multiplied by before a rule sees them: one over a loss scale."""

    def __init__(
        self,
        params: Any,
        hyperparameters: Mapping[str, Any],
        *,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        if not isinstance(params, Tensor | Mapping):
            params = list(params)
            if not params:
                raise InvalidArgument("params: found an empty list, expected parameters; pass model.parameters()")
        settings = {"maximize": maximize, "nonfinite": nonfinite, "missing": missing, "capturable": capturable}
        settings["clip_grad"] = clip_grad
        super().__init__(params, {**hyperparameters, **settings, "step": 0})
        if not any(group["params"] for group in self.param_groups):
            raise InvalidArgument("params: found groups without a parameter, expected one at least")

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """The rule that a group follows."""
        raise NotImplementedError

    def values_of(self, group: Mapping[str, Any], number: Callable[[Tensor], Any] = Tensor.item) -> dict[str, Any]:
        """The hyperparameters that a group's kernels see; ``number`` is what a tensor among them becomes."""
        return flat_hyperparameters(group, self.rule_of(group), number)

    @property
    def steps(self) -> int:
        """How many steps have been taken; of a capturable optimizer, when the device has taken them."""
        return int(self.param_groups[0]["step"])

    @property
    def _capturable(self) -> bool:
        return self.param_groups[0]["capturable"]

    # Groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch; a group that the rule cannot take is refused and not added."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
        except InvalidArgument:
            self.param_groups.pop()
            raise
        group["step"] = self._count(self.steps, group["params"])

    def _count(self, value: Any, params: Sequence[Tensor]) -> Any:
        """A count as this optimizer keeps it, beside some parameters: a number, or a tensor if it is capturable."""
        if not self._capturable:
            return int(value)
        return capturable.count(value, params[0].device if params else torch.device("cpu"))

    def _check_group(self, group: Mapping[str, Any]) -> None:
        if group["clip_grad"] is not None:
            check_clip_grad(group["clip_grad"])
        if group["capturable"]:
            capturable.check_group(self._name(group, 0) if group["params"] else "no parameter", group)
        self.checked_values(group)
        for name, choices in (("nonfinite", ("raise", "skip", "ignore")), ("missing", ("raise", "skip"))):
            if group[name] not in choices:
                raise InvalidArgument(f"{name}: found {group[name]!r}, expected {' or '.join(map(repr, choices))}")
        for name in (name for name in self.shared if name in self.defaults):
            if group[name] != self.defaults[name]:
                raise InvalidArgument(
                    f"{name}: found {group[name]!r} in a group, expected the optimizer's {self.defaults[name]!r}; "
                    f"{name} is shared by all groups, so leave it out"
                )
        for position, param in enumerate(group["params"]):
            if param.is_complex() or not param.is_floating_point() or param.layout != torch.strided:
                raise InvalidArgument(
                    f"{self._name(group, position)}: found a {param.dtype} tensor with layout {param.layout}, expected "
                    "a dense real floating-point parameter; leave it to another optimizer or view a complex one as real"
                )

    def _name(self, group: Mapping[str, Any], position: int) -> str:
        names = group.get("param_names")
        known = f"{names[position]!r} " if names else ""
        index = next((i for i, other in enumerate(self.param_groups) if other is group), 0)
        shape = tuple(group["params"][position].shape)
        return f"parameter {known}(group {index}, position {position}, shape {shape})"

    # A step

    @_disable_dynamo  # torch.compile(opt.step) runs it as it is: nothing is left to fuse, and tracing takes a minute
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; ``closure`` re-evaluates the model, calls ``backward`` and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = self._work()
        if not work:
            raise InvalidState("step: no parameter has a gradient; call loss.backward() first")
        if not self._capturable:
            capturable.refuse(work[0].params[0].device)
        number = Tensor.double if self._capturable else Tensor.item
        values = [self.checked_values(group, number) for group in self.param_groups]
        if self._only_initialises(work):
            for members in work:
                for param in members.params:
                    self._state(self.rule_of(self.param_groups[members.group]), param)
            return loss
        estimates = self._estimates()
        self._check_counts(work, estimates)
        scales = self._clipped(work)
        if self._capturable:
            go = capturable.verdict(self, work, estimates)
            advance(self, work, values, estimates, scales, go)
            for group in self.param_groups:
                group["step"].add_(go.to(group["step"].device))
        elif self._finite(
            [members.grads for members in work], None if estimates is None else Arrays(list(estimates.values()))
        ):
            before = self._watched()
            advance(self, work, values, estimates, scales)
            if self._watching:
                pairs = zip(before, self._watched(), strict=True)
                self._update_norms = [changes(old, new) for old, new in pairs]
            for group in self.param_groups:
                group["step"] += 1
        self._settled()
        return loss

    def _clipped(self, work: Sequence[Members]) -> list[Any] | None:
        """What the groups' gradients are multiplied by where there is a bound to their norm."""
        bound, given = self.param_groups[0]["clip_grad"], [members.grads for members in work]
        if bound is None:
            return None
        self.grad_norm = clipping.total_norm(given, wait=not self._capturable) * self._inverse_scale
        return [clipping.factor(bound, self.grad_norm) * self._inverse_scale] * len(self.param_groups)

    def _watched(self) -> list[list[Tensor]]:
        """Copies of each group's parameters, if they are watched."""
        groups = self.param_groups if self._watching else []
        return [[param.clone() for param in group["params"]] for group in groups]

    def _only_initialises(self, work: Sequence[Members]) -> bool:
        """Whether this is the step with learning rate and gradients zero by which torch.distributed.checkpoint makes
        the state that it then loads into; it is not counted, and wants no curvature.
        """
        fresh = not self.state and not self.steps and not any(float(group["lr"]) for group in self.param_groups)
        return fresh and not any(grad.count_nonzero() for members in work for grad in members.grads.tensors)

    def _work(self) -> list[Members]:
        """Everything that moves in this step."""
        work = []
        for index, group in enumerate(self.param_groups):
            params = [param for param in group["params"] if param.requires_grad]
            grads = [param.grad for param in params]
            if not all(map(is_not, grads, repeat(None))):
                self._check_missing(group)
                params, grads = [p for p in params if p.grad is not None], [g for g in grads if g is not None]
            if not all(map(is_, map(attrgetter("layout"), grads), repeat(torch.strided))):
                self._refuse_layout(group)
            if params:
                work.append(Members(index, params, Arrays(grads)))
        return work

    def _check_missing(self, group: Mapping[str, Any]) -> None:
        for position, param in enumerate(group["params"]) if group["missing"] == "raise" else ():
            if param.requires_grad and param.grad is None:
                raise InvalidState(
                    f"{self._name(group, position)} has no gradient; call loss.backward() first, freeze it "
                    "with requires_grad_(False), or construct the optimizer with missing='skip'"
                )

    def _refuse_layout(self, group: Mapping[str, Any]) -> NoReturn:
        layouts = [None if param.grad is None else param.grad.layout for param in group["params"]]
        position, layout = next(pair for pair in enumerate(layouts) if pair[1] not in (None, torch.strided))
        raise InvalidArgument(
            f"{self._name(group, position)} has a gradient with layout {layout}, expected a dense one; construct its "
            "nn.Embedding with sparse=False"
        )

    def _check_counts(self, work: Sequence[Members], estimates: Estimates | None) -> None:
        for members in work if estimates is None else ():
            group = self.param_groups[members.group]
            if "refreshes" not in self.rule_of(group).step.hyperparameters:
                continue
            for param in members.params:
                state = self.state.get(param) or {}
                if not (state if self._capturable else state.get("refreshes")):
                    position = next(place for place, other in enumerate(group["params"]) if other is param)
                    raise InvalidState(
                        f"{self._name(group, position)} has no curvature yet: call update_curvature before this step, "
                        "the first that it has a gradient in"
                    )

    def checked_values(self, group: Mapping[str, Any], number: Callable[[Tensor], Any] = Tensor.item) -> dict[str, Any]:
        """What :meth:`values_of` returns, or an error that names the first number in it that the rule cannot take."""
        values = self.values_of(group, number)
        self.rule_of(group).check({name: value for name, value in values.items() if not isinstance(value, Tensor)})
        return values

    def _finite(self, grads: Sequence[Arrays], estimates: Arrays | None) -> bool:
        """Whether everything that enters the step is finite; otherwise raise, or return False if that was chosen."""
        if self.param_groups[0]["nonfinite"] == "ignore":
            return True
        clipped = self.param_groups[0]["clip_grad"] is not None
        looks = [] if clipped and isfinite(self.grad_norm) else [("gradient", grads)]
        if estimates is not None:
            looks.append(("curvature estimate", [estimates]))
        for what, given in looks:
            place = first_nonfinite(given)
            if place is not None:
                self._settled()
                if self.param_groups[0]["nonfinite"] == "skip":
                    return False
                bad = [tensor for arrays in given for tensor in arrays.tensors][place]
                raise NonFinite(
                    f"{self._nonfinite(bad, what)}; nothing was changed. Lower lr, clip gradients, or "
                    "construct the optimizer with nonfinite='skip' to pass over such steps"
                )
        return True

    def _nonfinite(self, bad: Tensor, what: str) -> str:
        for group in self.param_groups:
            for position, param in enumerate(group["params"]):
                if param.grad is bad:
                    return f"the {what} of {self._name(group, position)} holds NaN or infinity"
        return f"a {what} of shape {tuple(bad.shape)} holds NaN or infinity"

    def _estimate_for(self, group: Mapping[str, Any], estimate: Tensor) -> Tensor:
        """A parameter's curvature estimate as its group's rule wants it."""
        return estimate

    def _state(self, rule: Rule, param: Tensor) -> dict[str, Any]:
        state = self.state[param]
        for count in counts_of(rule):
            if count not in state:
                state[count] = self._count(0, [param])
        for slot in rule.slots:
            if slot not in state:  # a new parameter, or a rule that came with a changed hyperparameter
                state[slot] = zeros_for(param)
        return state

    def _estimates(self) -> Estimates | None:
        """Curvature estimates that this step folds in, for rules that have any."""
        return None

    def _settled(self) -> None:
        """Forget what was gathered for one step: it is over, taken or not, or the state was replaced."""

    # Diagnostics

    @torch.no_grad()
    def diagnostics(self) -> list[dict[str, Any]]:
        """How each group fares, from its state as it is; nothing is computed or kept for it in a step.

        One dictionary a group, with these entries where its rule has them and a step was taken:

        - ``clip_fraction`` (Sophia): the share of entries that the clip holds back.
        - ``curvature``: quantiles "min", "5%", "50%", "95%" and "max" over the entries of the curvature slot, which is
          without bias correction; AdaHessian's holds squares.
        - ``negative_curvature``: the share of its entries below zero; not for AdaHessian.
        - ``direction_norm`` (Apollo): the Euclidean norm of the last update divided by its learning rate.
        - ``update_norm``, after :meth:`watch_updates`: that of the last step's change of the parameters, with decay.
        """
        found = [self._diagnosed(group) for group in self.param_groups]
        for index, norm in enumerate(self._update_norms or ()):
            found[index]["update_norm"] = norm
        return found

    def watch_updates(self, watch: bool = True) -> None:
        """From now on copy the parameters before each step, so that there is an ``update_norm``."""
        if self._capturable:
            raise InvalidState("watch_updates: norms are numbers of the host's, which a capturable step does not have")
        self._watching, self._update_norms = watch, None

    def _diagnosed(self, group: Mapping[str, Any]) -> dict[str, Any]:
        rule, found = self.rule_of(group), dict[str, Any]()
        states = [self.state[param] for param in group["params"] if self.state.get(param)]
        if not states:
            return found
        values = self.values_of(group)
        measured = {name: share(measure, states, values) for name, measure in rule.measures.items()}
        slots = {slot: [state[slot].cpu().numpy() for state in states] for slot in rule.slots}
        found |= diagnostics.describe(rule, measured, slots, self.signed_curvature)
        return found

    # Checkpoints

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load what ``state_dict`` of the same optimizer returned; anything else is refused and nothing is changed."""
        self._check_state(state_dict)
        super().load_state_dict(dict(state_dict))
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        ours = zip(self._every(), numbers, strict=True)
        saved = {param: state_dict["state"].get(number) or {} for param, number in ours}
        restore_wide_slots(self.state, saved)
        self._keep_own()
        for name in self.defaults.keys() & set(self.shared):
            self.defaults[name] = self.param_groups[0][name]  # what a group that is added later has to have
        self._settled()

    def _keep_own(self) -> None:
        """After a load: whether it is capturable is this optimizer's own affair, and with it what counts are."""
        for group in self.param_groups:
            group["capturable"] = self.defaults["capturable"]
            group.setdefault("clip_grad", self.defaults["clip_grad"])
        for group in self.param_groups:
            group["step"] = self._count(group["step"], group["params"])
            for param in group["params"]:
                state = self.state.get(param) or {}
                for name in {"step", "refreshes"} & state.keys():
                    state[name] = self._count(state[name], [param])

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        check_state(self, state_dict)

    def _movable(self) -> Iterable[Tensor]:
        return [param for param in self._every() if param.requires_grad]

    def _positions(self) -> list[int]:
        """Of the movable parameters among all, counted through the groups."""
        return [position for position, param in enumerate(self._every()) if param.requires_grad]

    def _every(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]
