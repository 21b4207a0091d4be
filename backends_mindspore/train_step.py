"""The Cell that trains with an optimizer of this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from mindspore import Tensor, nn

from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.bound import Bound
from hessiod.backends_mindspore.derivatives.graph import Watched
from hessiod.backends_mindspore.diagnostics import measured
from hessiod.backends_mindspore.loss_scale import loss_scale_from
from hessiod.backends_mindspore.memory import Memory
from hessiod.backends_mindspore.parallel import processes_of
from hessiod.backends_mindspore.second_order import CurvatureOptimizer
from hessiod.backends_mindspore.step_graph import StepGraph
from hessiod.core.errors import InvalidArgument
from hessiod.core.settings import whole

check_accumulation = whole(1, "a whole number of micro-batches >= 1", way_out="; 1 for none")


class TrainStep(StepGraph):
    """One training step as a Cell: ``loss = step(*inputs, target)``.

    Forward, backward and update are one graph in both modes, with curvature in it where that is due. On the CPU the
    update is left to compiled kernels if there is neither accumulation nor a dynamic loss scale; the rest is then a
    graph with curvature and one without, each compiled once. The Cell can be given to ``ms.train.Model`` as the train
    network. Call ``set_train()`` for Dropout and BatchNorm, as with ``nn.TrainOneStepCell``; ``Model.train`` does.

    Args:
        net: from inputs to outputs (logits).
        loss_fn: from outputs and target to a scalar.
        optimizer: an optimizer of this package.
        accumulation: micro-batches of a step. Each call takes one; the last of them moves the parameters, by the mean
            of their gradients. Curvature is of all of them: Hutchinson's estimates are averaged, and Gauss-Newton's
            sampled gradients are added up before they are squared and divided by the number of all targets.
        clip_grad: the largest global norm of the gradients, as of ``ops.clip_by_global_norm``, or a function from the
            tuple of gradients to another, traced into the step. It sees unscaled gradients of the whole step, and the
            curvature does not pass it. None for no clipping.
        loss_scale: what the loss is multiplied by before it is differentiated, for float16: a number, a
            ``LossScaleManager``, a loss-scale update cell or an ``ms.amp.LossScaler``. Gradients and curvature are
            divided by it, in float32. A step that overflows is skipped, with its curvature, and the scale moves as
            MindSpore's own would; at scale 1 it is the optimizer's ``nonfinite`` that decides. None is the optimizer's
            ``loss_scale``.
        data_parallel: whether each of the processes that ``msrun`` started has its own batch of one training: gradients
            and curvature are averaged over them, and Gauss-Newton's sampled gradients before they are squared. The loss
            that is returned is the process's own. None is what ``ms.set_auto_parallel_context(parallel_mode=...)``
            says; False trains a net in each process.
        uncertified: for SophiaH and others that differentiate the net twice, as for
            :func:`~hessiod.backends_mindspore.derivatives.functions.hvp`.

    Raises:
        InvalidArgument: at the first step, for an operator whose second derivative is not right, with an optimizer
            that needs it, and for a loss that is not a scalar.
        NonFinite: when a step was refused; nothing was changed.

    >>> import mindspore as ms, numpy as np
    >>> from mindspore import nn
    >>> from hessiod.mindspore import SophiaG, TrainStep
    >>> _ = ms.set_seed(0)
    >>> net, x = nn.Dense(8, 4), ms.Tensor(np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32))
    >>> y = ms.Tensor(np.arange(32, dtype=np.int32) % 4)
    >>> opt = SophiaG(net.trainable_params(), learning_rate=0.01, every=10)
    >>> step = TrainStep(net, nn.CrossEntropyLoss(), opt, clip_grad=1.0)
    >>> losses = [float(step(x, y).asnumpy()) for _ in range(20)]
    >>> losses[-1] < losses[0], opt.steps
    (True, 20)
    """

    def __init__(
        self,
        net: nn.Cell,
        loss_fn: Any,
        optimizer: RuleOptimizer,
        *,
        accumulation: int = 1,
        clip_grad: float | Callable[[Any], Any] | None = None,
        loss_scale: Any = None,
        data_parallel: bool | None = None,
        uncertified: str = "check",
    ) -> None:
        if not isinstance(optimizer, RuleOptimizer):
            raise InvalidArgument(
                f"optimizer: found {type(optimizer).__name__}, expected an optimizer of hessiod.mindspore; MindSpore's "
                "own train with nn.TrainOneStepCell"
            )
        check_accumulation("accumulation", accumulation)
        if loss_scale is not None and optimizer.loss_scale != 1:
            raise InvalidArgument(
                f"loss_scale: found {loss_scale!r} beside the optimizer's {optimizer.loss_scale}, expected one of them"
            )
        scale = loss_scale_from(optimizer.loss_scale if loss_scale is None else loss_scale)
        processes = processes_of(data_parallel)
        params = [param for member in optimizer.members for param in member.parameters]
        processes.check_dtypes(params)
        settings: dict[str, Any] = dict(loss_scale=scale, processes=processes, accumulation=accumulation)
        super().__init__(net, loss_fn, optimizer, clip_grad=clip_grad, **settings)
        self.alike, self.bound = processes.size == 1, Bound([net, loss_fn], params)
        clip = self.clip if self.clips else None
        self.own_step = optimizer.step_with(net, loss_fn, clip=clip, micro=self.micro, **settings)
        if accumulation > 1 and self.own_step is None:
            self.bind_sums()
        if self.twice:
            self.watched = Watched(net, loss_fn, self.weights, uncertified)
        self.memory = Memory(self.get_parameters())

    def __call__(self, *inputs: Tensor) -> Tensor:
        """One step or micro-batch; raise if the step was refused and that was asked for."""
        self.optimizer.check_still_movable()
        self.bound.check()
        self.memory.reclaim()
        if not self.alike:
            self.processes.check_equal([*self.weights, *self.optimizer.get_parameters()])
            self.alike = True
        scale = float(self.loss_scale.current().asnumpy()) if self.loss_scale.dynamic else 1.0
        cured = self.watched.step(inputs) if self.twice else nullcontext()
        with measured(self.optimizer), explained(), cured:
            if self.own_step is not None:
                loss = self.own_step(*inputs)
            elif self.moves_on_host():
                loss = self.step_on_host(inputs)
            else:
                loss = super().__call__(*inputs)
        self.memory.hold()
        moved = self.accumulation == 1 or int(self.micro.asnumpy()) == 0
        if moved and scale <= 1:
            self.optimizer.raise_if_refused()
        return loss

    def moves_on_host(self) -> bool:
        """Whether compiled kernels take the update."""
        return self.accumulation == 1 and not self.loss_scale.dynamic and self.optimizer.host.usable()

    def step_on_host(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The graph up to the gradients, and then the kernels."""
        due = isinstance(self.optimizer, CurvatureOptimizer) and self.optimizer.curvature_due
        loss, gradients, estimates = self.curved_parts(*inputs) if due else self.plain_parts(*inputs)
        factor = 1.0 if self.clips else 1.0 / (float(self.loss_scale.current().asnumpy()) * self.size)
        self.optimizer.host.take(self.optimizer, gradients, estimates if due else None, factor, marked=self.clips)
        return loss


@contextmanager
def explained() -> Iterator[None]:
    """Turn what a graph says about the user's loss, by Python's own exceptions, into one line of ours."""
    try:
        yield
    except ValueError as error:
        found = re.search(r"(loss|logits): found [^'\n]*", str(error))
        if found is None:
            raise
        raise InvalidArgument(found.group()) from error
