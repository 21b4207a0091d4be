"""One adapter from any rule of core/ to ``mindspore.nn.Optimizer``, the same graph in both modes.

``construct`` is traced as a whole, so nothing depends on the host between two steps: the step count is the base class's
``global_step``, and a rule's scalars are worked out inside the graph from 0-d float64 tensors. That is the arithmetic
of Python's doubles, and a new learning rate does not recompile. Python floats would not do: in a traced function
MindSpore rounds them to float32.

What MindSpore 2.10 takes inside a graph shapes the loops below. ``ops.assign`` reaches a parameter only through a name
bound by the loop over its ParameterTuple. Through an index, a list or a nested tuple it is dropped without a word, or
the graph fails to run. Hence four slots by name, of which a rule uses as many as it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.nn.optim.optimizer import _ConvertToCell

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.diagnostics import measured, report
from hessiod.backends_mindspore.fast import HostStep
from hessiod.backends_mindspore.groups import check_parameters, groups_of
from hessiod.backends_mindspore.holder import Holder, name_apart
from hessiod.backends_mindspore.schedule import Constant, LearningRates, check_rate
from hessiod.backends_mindspore.slots import SLOTS, places, working_dtype, zeros_for
from hessiod.backends_mindspore.traced import each, entries, wholly_finite
from hessiod.core.errors import InvalidArgument, InvalidState, NonFinite
from hessiod.core.rule import Rule


def scaled_in(array, dtype, factor):
    """An array times a factor, in a dtype."""
    return ops.cast(array, dtype) * ops.cast(factor, dtype)


class RuleOptimizer(Holder, nn.Optimizer):
    """A rule with MindSpore's conventions: learning_rate as number, list, Tensor or Cell; groups; both modes.

    Args:
        rule: the rule.
        params: parameters, or groups with the keys "params", "lr", "weight_decay" and "order_params".
        learning_rate: a number, a list or 1-D Tensor with one entry a step, or a ``LearningRateSchedule``.
        hyperparameters: the rule's, under its own names, without lr and weight_decay.
        weight_decay: a number, or a Cell of the step. It applies to every parameter, those named beta and gamma too,
            which MindSpore's own optimizers leave out; use a group to leave them out.
        loss_scale: gradients are divided by it.
        nonfinite: what a step does when a gradient or a curvature estimate holds NaN or infinity: "raise"
            (:class:`~hessiod.core.errors.NonFinite`) or "skip". Parameters and state stay as they were either way, and
            ``refused`` counts such steps. Inside somebody else's graph nothing can be raised: look at ``refused``.
    """

    signed_curvature = True
    """Whether the curvature slot keeps the estimates' sign."""

    watching = False
    update_norms: list[float] | None = None

    def __init__(
        self,
        rule: Rule,
        params: Any,
        learning_rate: Any,
        hyperparameters: Mapping[str, float],
        weight_decay: Any = 0.0,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        params = check_parameters(params)
        if nonfinite not in ("raise", "skip"):
            raise InvalidArgument(f"nonfinite: found {nonfinite!r}, expected 'raise' or 'skip'")
        if not isinstance(loss_scale, int | float) or not 0 < loss_scale < float("inf"):
            raise InvalidArgument(f"loss_scale: found {loss_scale!r}, expected a number > 0; 1 for no scaling")
        numbers = {name: rule.defaults[name] for name in rule.hyperparameters} | dict(hyperparameters)
        rule.check(numbers)
        for group in groups_of(params, learning_rate, weight_decay):
            check_rate(rule, group["lr"])
            if not isinstance(group["weight_decay"], nn.Cell):
                rule.hyperparameters["weight_decay"].check("weight_decay", group["weight_decay"])
        super().__init__(learning_rate, params, weight_decay, float(loss_scale))
        self.rule, self.rule_name = rule, rule.name
        self.nonfinite = nonfinite
        self.inverse_loss_scale = Tensor(1.0 / loss_scale, ms.float64)
        self.refused = Parameter(Tensor(0, ms.int32), name="refused", requires_grad=False)
        self.finite = Parameter(Tensor(np.ones(len(self.parameters), bool)), name="finite", requires_grad=False)
        self._bind_state(rule)
        self._bind_groups(rule, params, learning_rate, weight_decay, numbers)
        self.host = HostStep(rule, [param.dtype for param in self.parameters])
        users = set(map(id, self.parameters))
        name_apart([param for param in self.get_parameters() if id(param) not in users], self.parameters)

    def _bind_state(self, rule: Rule) -> None:
        """Name the slots, and the places of a kernel's operands and results among parameter, gradient and slots."""
        if len(rule.slots) > SLOTS:
            raise InvalidArgument(f"rule: {rule.name} has {len(rule.slots)} slots, expected at most {SLOTS}")
        states = [zeros_for(self.parameters, slot) for slot in rule.slots]
        for slot, state in zip(rule.slots, states, strict=True):
            setattr(self, slot, state)
        self.slot_names = rule.slots
        self.slot0, self.slot1, self.slot2, self.slot3 = (*states, *[self.parameters] * (SLOTS - len(states)))
        self.step_kernel, self.step_scalars = rule.step.function, rule.step.scalars
        self.step_hyperparameters = rule.step.hyperparameters
        self.step_operands, self.step_writes = places(rule.step, rule.slots)
        if len(rule.measures) > 1:
            raise InvalidArgument(f"rule: {rule.name} has {len(rule.measures)} measures, expected at most 1")
        for measure in rule.measures.values():
            self.measure_kernel, self.measure_scalars = measure.function, measure.scalars
            self.measure_hyperparameters = measure.hyperparameters
            self.measure_operands, _ = places(measure, rule.slots)
        self.second_order = rule.refresh is not None
        if rule.refresh is not None:
            self.refreshes = Parameter(Tensor(0, ms.int32), name="refreshes", requires_grad=False)
            self.refresh_kernel, self.refresh_scalars = rule.refresh.function, rule.refresh.scalars
            self.refresh_hyperparameters = rule.refresh.hyperparameters
            self.refresh_operands, self.refresh_writes = places(rule.refresh, rule.slots)

    def _bind_groups(
        self, rule: Rule, params: Sequence[Any], learning_rate: Any, weight_decay: Any, numbers: Mapping[str, float]
    ) -> None:
        """Collect the parameters that share every scalar, so that scalars are worked out once for each such group."""
        self.hyperparameter_names = tuple(name for name in numbers if name not in ("lr", "weight_decay"))
        self.hyperparameter_values = tuple(Tensor(numbers[name], ms.float64) for name in self.hyperparameter_names)
        owner: dict[str, tuple[int, Any, Any]] = {}
        for index, group in enumerate(groups_of(params, learning_rate, weight_decay)):
            owner |= {param.name: (index, group["lr"], group["weight_decay"]) for param in group["params"]}
        keys = [(owner[param.name][0], str(param.dtype)) for param in self.parameters]
        distinct = list(dict.fromkeys(keys))
        first = [keys.index(key) for key in distinct]
        self.user_groups = tuple(owner[param.name][0] for param in self.parameters)
        self.group_of = tuple(distinct.index(key) for key in keys)
        self.group_count = len(distinct)
        self.group_dtypes = tuple(working_dtype(self.parameters[position]) for position in first)
        self.working_dtypes = tuple(working_dtype(param) for param in self.parameters)
        owners = [owner[self.parameters[position].name] for position in first]
        self.group_rates = LearningRates([lr for _, lr, _ in owners])
        self.group_places = tuple(first)
        self.decay_is_cell = tuple(isinstance(decay, nn.Cell) for *_, decay in owners)
        decays = [0.0 if isinstance(decay, nn.Cell) else decay for *_, decay in owners]
        self.group_decays = tuple(Tensor(float(decay), ms.float64) for decay in decays)

    def _build_single_lr(self, learning_rate, name):
        """MindSpore's learning rate as a Parameter or a Cell, without its loss of digits; called by its constructor."""
        rate = super()._build_single_lr(learning_rate, name)
        return Constant(rate.learning_rate) if isinstance(rate, _ConvertToCell) else rate

    # In the graph

    def rates(self, group):
        """The learning rate and the weight decay of a group at this step, as 0-d float64 tensors."""
        lr = self.get_lr()
        decay = self.group_decays[group]
        if self.is_group_lr:
            lr = lr[self.group_places[group]]
        if self.decay_is_cell[group]:
            decay = self.get_weight_decay()
            if self.is_group:
                decay = decay[self.group_places[group]]
            decay = ops.reshape(ops.cast(decay, ms.float64), ()) / self.loss_scale  # a Cell may give one entry
        return self.group_rates.exact(lr, group, self.global_step[0]), decay

    @ms.jit
    def all_rates(self):
        """Those of all groups, one after the other, for a step on the host."""
        found = ()
        for group in range(self.group_count):
            found = found + self.rates(group)
        return ops.stack(found)

    def group_values(self, group):
        """Every hyperparameter of a group at this step, and the step, as 0-d float64 tensors."""
        values = dict(zip(self.hyperparameter_names, self.hyperparameter_values))  # noqa: B905 - strict= cannot be traced
        lr, decay = self.rates(group)
        values["lr"] = lr
        values["weight_decay"] = decay
        values["step"] = ops.cast(self.global_step[0] + 1, ms.float64)
        if self.second_order:
            values["refreshes"] = ops.cast(self.refreshes, ms.float64)
        return values

    def group_scalars(self, scalars, names, group):
        """A kernel's scalars for a group, each rounded once to the dtype of the arrays it will meet."""
        values = self.group_values(group)
        doubles = scalars(**{name: values[name] for name in names})
        return {name: ops.cast(value, self.group_dtypes[group]) for name, value in doubles.items()}

    def all_scalars(self, scalars, names):
        """Those of all groups."""
        found: Any = ()
        for group in range(self.group_count):
            found = (*found, self.group_scalars(scalars, names, group))
        return found

    def sweep(self, kernel, scalars, operands, writes, gradients, estimates):
        """Run a kernel over all parameters and assign its results."""
        for param, grad, estimate, slot0, slot1, slot2, slot3, group, dtype in zip(  # noqa: B905
            self.parameters,
            gradients,
            estimates,
            self.slot0,
            self.slot1,
            self.slot2,
            self.slot3,
            self.group_of,
            self.working_dtypes,
        ):
            wide = (ops.cast(param, dtype), ops.cast(grad, dtype), ops.cast(estimate, dtype))
            arrays = (*wide, slot0, slot1, slot2, slot3)
            results = kernel(xp, *[arrays[place] for place in operands], **scalars[group])
            if writes[0] >= 0:
                ops.assign(param, ops.cast(results[writes[0]], param.dtype))
            if writes[1] >= 0:
                ops.assign(slot0, results[writes[1]])
            if writes[2] >= 0:
                ops.assign(slot1, results[writes[2]])
            if writes[3] >= 0:
                ops.assign(slot2, results[writes[3]])
            if writes[4] >= 0:
                ops.assign(slot3, results[writes[4]])

    def take_step(self, gradients):
        """Move every parameter and its slots."""
        scalars = self.all_scalars(self.step_scalars, self.step_hyperparameters)
        self.sweep(self.step_kernel, scalars, self.step_operands, self.step_writes, gradients, gradients)
        ops.assign_add(self.global_step, self.global_step_increase_tensor)

    def refresh(self, estimates):
        """Fold curvature estimates into the state, and count them."""
        ops.assign_add(self.refreshes, 1)
        scalars = self.all_scalars(self.refresh_scalars, self.refresh_hyperparameters)
        self.sweep(self.refresh_kernel, scalars, self.refresh_operands, self.refresh_writes, estimates, estimates)

    def unscaled(self, gradients, factor):
        """Gradients in the dtype that a parameter's arithmetic has, times a factor."""
        return tuple(map(scaled_in, tuple(gradients), self.working_dtypes, (factor,) * len(gradients)))

    def all_finite(self, gradients, estimates):
        """Whether everything that enters a step is finite; what is not is marked in ``finite``."""
        finite = ops.stack(each(wholly_finite, gradients))
        if len(estimates) > 0:
            finite = ops.logical_and(finite, ops.stack(each(wholly_finite, estimates)))
        ops.assign(self.finite, finite)
        return finite.all()

    def refuse(self):
        """Count a step that was not taken."""
        ops.assign_add(self.refused, 1)
        return True

    def guarded_step(self, gradients, estimates=()):
        """Take the step, with curvature if there are estimates, if everything is finite; otherwise count a refusal."""
        gradients = self.unscaled(gradients, self.inverse_loss_scale)
        if self.all_finite(gradients, estimates):
            if len(estimates) > 0:
                self.refresh(estimates)
            self.take_step(gradients)
        else:
            self.refuse()
        return True

    @ms.jit
    def construct(self, gradients):
        """Take one step from a tuple of gradients, one for each of ``parameters``."""
        return self.guarded_step(gradients)

    # On the host

    def __call__(self, gradients: Sequence[Tensor]) -> Any:
        """Take one step; raise if it was refused and that was asked for."""
        if len(gradients) != len(self.parameters):
            raise InvalidArgument(
                f"gradients: found {len(gradients)}, expected {len(self.parameters)}, one for each of the optimizer's "
                "parameters; differentiate with respect to optimizer.parameters"
            )
        for param, grad in zip(self.parameters, gradients, strict=True):
            if not isinstance(grad, Tensor) or grad.shape != param.shape:
                found = f"shape {grad.shape}" if isinstance(grad, Tensor) else repr(grad)
                raise InvalidArgument(
                    f"gradients: found {found} for parameter {param.name!r}, expected a dense Tensor of shape "
                    f"{param.shape}; take the parameter out of the optimizer if it is frozen"
                )
        self.check_still_movable()
        with measured(self):
            if self.host.usable():
                self.host.take(self, gradients)
            else:
                super().__call__(tuple(gradients))
        self.raise_if_refused()
        return True

    def check_still_movable(self) -> None:
        """Raise :class:`InvalidState` if a parameter was frozen since: a graph that was traced moves it still."""
        frozen = [param.name for param in self.parameters if not param.requires_grad]
        if frozen:
            raise InvalidState(
                f"parameter {frozen[0]!r} ({len(frozen)} in all) was frozen after the optimizer was constructed; "
                "construct a new one, and a new TrainStep, with net.trainable_params()"
            )

    def __repr__(self) -> str:
        """The class, the hyperparameters, and how far it is."""
        pairs = zip(self.hyperparameter_names, self.hyperparameter_values, strict=True)
        numbers = "".join(f"{name}={float(value.asnumpy()):g}, " for name, value in pairs)
        return f"{type(self).__name__}({numbers}{len(self.parameters)} parameters, {self.steps} steps taken)"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refused: MindSpore's optimizers hold graph primitives, which Python cannot copy."""
        raise InvalidState(
            f"{type(self).__name__}: an optimizer of MindSpore cannot be copied or pickled; save it with "
            "hessiod.checkpoint.save or ms.save_checkpoint, and load it into one that is constructed like this"
        )

    def step_with(self, net: nn.Cell, loss_fn: Any, **settings: Any) -> Any:
        """A training step of the optimizer's own, for TrainStep to run; None for the one that is there."""
        return None

    def raise_if_refused(self) -> None:
        """Raise :class:`NonFinite` if the last step was refused and the optimizer was told to raise."""
        if self.nonfinite == "skip":
            return
        bad = [param.name for param, fine in zip(self.parameters, self.finite.asnumpy(), strict=True) if not fine]
        if bad:
            raise NonFinite(
                f"the gradient or curvature estimate of parameter {bad[0]!r} ({len(bad)} in all) holds NaN or "
                "infinity; nothing was changed. Lower learning_rate, clip gradients, or construct the optimizer with "
                "nonfinite='skip' to pass over such steps"
            )

    @property
    def members(self) -> tuple[RuleOptimizer, ...]:
        """The optimizers that the parameters are spread over: this one."""
        return (self,)

    @property
    def steps(self) -> int:
        """How many steps have been taken."""
        return int(self.global_step.asnumpy()[0])

    # Diagnostics

    def watch_updates(self, watch: bool = True) -> None:
        """From now on copy the parameters before each step that the host calls, so that there is an ``update_norm``."""
        self.watching, self.update_norms = watch, None

    @ms.jit
    def measure(self):
        """What the rule's measure finds in each parameter's slots."""
        found = []
        for param, slot0, slot1, slot2, slot3, group in zip(  # noqa: B905 - strict= cannot be traced
            self.parameters, self.slot0, self.slot1, self.slot2, self.slot3, self.group_of
        ):
            arrays = (param, param, param, slot0, slot1, slot2, slot3)
            scalars = self.group_scalars(self.measure_scalars, self.measure_hyperparameters, group)
            count = self.measure_kernel(xp, *entries(arrays, self.measure_operands), **scalars)
            found.append(ops.cast(count, ms.float64))
        return ops.stack(found)

    def measurements(self) -> np.ndarray:
        """The same on the host, where its memory can be read there."""
        return self.host.measure(self) if self.host.usable() else self.measure().asnumpy()

    def diagnostics(self) -> list[dict[str, Any]]:
        """How each group fares, from its state as it is; nothing is computed or kept for it in a step.

        One dictionary a group, with the keys and meanings that hessiod.torch has, where its rule has them and a step
        was taken:

        - ``clip_fraction`` (Sophia): the share of entries that the clip holds back.
        - ``curvature``: quantiles "min", "5%", "50%", "95%" and "max" over the entries of the curvature slot, which is
          without bias correction; AdaHessian's holds squares.
        - ``negative_curvature``: the share of its entries below zero; not for AdaHessian.
        - ``direction_norm`` (Apollo): the Euclidean norm of the last update divided by its learning rate.
        - ``update_norm``, after :meth:`watch_updates`: that of the last step's change of the parameters, with decay.
        """
        return report(self)
