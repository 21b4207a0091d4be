"""The Cell that trains with an optimizer of this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from hessiod.backends_mindspore.adapter import RuleOptimizer, zeros_for
from hessiod.backends_mindspore.curvature import Loss
from hessiod.backends_mindspore.derivatives.cures.marker import under_cures
from hessiod.backends_mindspore.derivatives.graph import Watched
from hessiod.backends_mindspore.diagnostics import measured
from hessiod.backends_mindspore.holder import Holder
from hessiod.backends_mindspore.loss_scale import loss_scale_from
from hessiod.backends_mindspore.parallel import processes_of
from hessiod.backends_mindspore.second_order import CurvatureOptimizer, GaussNewtonOptimizer, HutchinsonOptimizer
from hessiod.core.errors import InvalidArgument
from hessiod.core.settings import whole

check_accumulation = whole(1, "a whole number of micro-batches >= 1", way_out="; 1 for none")


class TrainStep(Holder):
    """One training step as a Cell: ``loss = step(*inputs, target)``.

    Forward, backward and update are one graph in both modes, with curvature in it where that is due. On the CPU the
    update is left to compiled kernels if there is neither accumulation nor a dynamic loss scale; the rest is then a
    graph with curvature and one without, each compiled once. The Cell can be given to ``ms.train.Model`` as the train
    network.

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
        super().__init__(auto_prefix=False)
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
        self.optimizer, self.weights = optimizer, optimizer.parameters
        self.loss_scale = loss_scale_from(optimizer.loss_scale if loss_scale is None else loss_scale)
        self.processes = processes_of(data_parallel)
        self.processes.check_dtypes(self.weights)
        self.size, self.rank, self.alike = self.processes.size, self.processes.rank, self.processes.size == 1
        self.own_step = optimizer.step_with(net, loss_fn, self.loss_scale)
        if self.own_step is not None:
            check_alone(type(optimizer).__name__, accumulation=(accumulation, 1), clip_grad=(clip_grad, None))
            check_alone(type(optimizer).__name__, processes=(self.size, 1))
        self.clip = clipper(clip_grad)
        self.clips = clip_grad is not None
        self.loss = Loss(net, loss_fn)
        self.second_order = isinstance(optimizer, CurvatureOptimizer)
        if isinstance(optimizer, CurvatureOptimizer):
            self.every, self.curvature_first = optimizer.every, optimizer.curvature_first
            self.estimate = optimizer.estimate_with(net, loss_fn)
            self.own_draws = isinstance(optimizer, GaussNewtonOptimizer)
        self.twice = isinstance(optimizer, HutchinsonOptimizer)
        if self.twice:
            self.watched = Watched(net, loss_fn, self.weights, uncertified)
        self.accumulation, self.none = accumulation, Tensor(0, ms.float64)
        self._bind_sums()

    def _bind_sums(self) -> None:
        """What is kept between the micro-batches of a step; not more than the first for a first-order rule."""
        self.micro = Parameter(Tensor(0, ms.int32), name="micro_batch", requires_grad=False)
        if self.accumulation > 1:
            self.share = Tensor(1.0 / self.accumulation, ms.float64)
            self.gradient_sums = zeros_for(self.weights, "gradient_sum")
            if self.second_order:
                self.curvature_sums = zeros_for(self.weights, "curvature_sum")
                self.curvature_count = Parameter(Tensor(0, ms.float64), name="curvature_count", requires_grad=False)

    # In the graph

    def curvature_is_due(self):
        """Whether this step wants an estimate."""
        step = self.optimizer.global_step[0]
        return ops.logical_and(step >= self.curvature_first, step % self.every == 0)

    def together(self, gradients, totals, count):
        """Gradients, curvature totals and their count, added up over the processes."""
        if self.size == 1:
            return gradients, totals, count
        found = self.processes.summed([one for one in gradients] + [one for one in totals] + [count])  # noqa: C416
        number = len(gradients)
        return found[:number], found[number:-1], ops.cast(found[-1], ms.float64)

    def finish(self, gradients, totals, count, share):
        """Add up, unscale, check, clip and move; ``share`` is what the gradients are multiplied by besides."""
        gradients, totals, count = self.together(gradients, totals, count)
        estimates = ()
        if len(totals) > 0:
            estimates = self.estimate.finish(totals, count)
        scale = ops.cast(self.loss_scale.current(), ms.float64)
        gradients = self.optimizer.unscaled(gradients, share / (scale * self.size))
        finite = self.optimizer.all_finite(gradients, estimates)
        if finite:
            moves = gradients
            if self.clips:
                moves = self.clip(gradients)
            if len(estimates) > 0:
                self.optimizer.refresh(estimates)
            self.optimizer.take_step(moves)
        else:
            self.optimizer.refuse()
        return self.loss_scale.settle(finite)

    def plain(self, inputs):
        """Loss and scaled gradients."""
        scale = self.loss_scale.current()
        (_, loss), gradients = ms.value_and_grad(self.loss, None, self.weights, has_aux=True)(scale, inputs)
        return loss, gradients

    def curved(self, inputs):
        """Loss and scaled gradients, and of the curvature totals and a count."""
        step = ops.cast(self.optimizer.global_step[0] + 1, ms.int64)
        number = ops.cast(self.micro, ms.int64)
        if self.own_draws:
            number = number * self.size + self.rank
        return self.estimate(step, number, self.loss_scale.current(), inputs)

    def whole_step(self, inputs):
        """A step on one batch."""
        if self.second_order:
            if self.curvature_is_due():
                loss, gradients, totals, count = self.curved(inputs)
                self.finish(gradients, totals, count, 1.0)
            else:
                loss, gradients = self.plain(inputs)
                self.finish(gradients, (), self.none, 1.0)
        else:
            loss, gradients = self.plain(inputs)
            self.finish(gradients, (), self.none, 1.0)
        return loss

    def micro_step(self, inputs):
        """Add up one micro-batch, and move after the last."""
        if self.second_order:
            if self.curvature_is_due():
                loss, gradients, totals, count = self.curved(inputs)
                for total, found in zip(self.curvature_sums, totals):  # noqa: B905 - strict= cannot be traced
                    ops.assign_add(total, ops.cast(found, total.dtype))
                ops.assign_add(self.curvature_count, count)
            else:
                loss, gradients = self.plain(inputs)
        else:
            loss, gradients = self.plain(inputs)
        for total, gradient in zip(self.gradient_sums, gradients):  # noqa: B905
            ops.assign_add(total, ops.cast(gradient, total.dtype))
        if self.micro == self.accumulation - 1:
            self.last_of_step()
        else:
            ops.assign_add(self.micro, 1)
        return loss

    def last_of_step(self):
        """Move by what was added up, and forget it."""
        sums = [total + 0.0 for total in self.gradient_sums]
        if self.second_order:
            if self.curvature_is_due():
                totals = [total + 0.0 for total in self.curvature_sums]
                self.finish(sums, totals, self.curvature_count + 0.0, self.share)
            else:
                self.finish(sums, (), self.none, self.share)
            for total in self.curvature_sums:
                ops.assign(total, ops.zeros_like(total))
            ops.assign(self.curvature_count, ops.zeros_like(self.curvature_count))
        else:
            self.finish(sums, (), self.none, self.share)
        for total in self.gradient_sums:
            ops.assign(total, ops.zeros_like(total))
        ops.assign(self.micro, ops.zeros_like(self.micro))
        return True

    def unmoved(self, gradients):
        """Gradients for a step on the host: as they are, or unscaled, looked through and clipped."""
        if not self.clips:
            return gradients
        scale = ops.cast(self.loss_scale.current(), ms.float64)
        gradients = self.optimizer.unscaled(gradients, 1.0 / (scale * self.size))
        self.optimizer.all_finite(gradients, ())
        return self.clip(gradients)

    @ms.jit
    def plain_parts(self, *inputs):
        """What a step on the host needs: the loss, and gradients over all processes."""
        loss, gradients = self.plain(inputs)
        gradients, _, _ = self.together(gradients, (), self.none)
        return loss, self.unmoved(gradients), ()

    @ms.jit
    def curved_parts(self, *inputs):
        """The same with estimates."""
        if self.twice and not under_cures():
            raise RuntimeError("TrainStep with this optimizer cannot be part of another graph; call it from the host")
        loss, gradients, totals, count = self.curved(inputs)
        gradients, totals, count = self.together(gradients, totals, count)
        return loss, self.unmoved(gradients), self.estimate.finish(totals, count)

    @ms.jit
    def construct(self, *inputs):
        """One step, or one micro-batch of it, on a batch whose last input is the target."""
        if self.twice and not under_cures():
            raise RuntimeError("TrainStep with this optimizer cannot be part of another graph; call it from the host")
        return self.micro_step(inputs) if self.accumulation > 1 else self.whole_step(inputs)

    # On the host

    def __call__(self, *inputs: Tensor) -> Tensor:
        """One step or micro-batch; raise if the step was refused and that was asked for."""
        self.optimizer.check_still_movable()
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


def check_alone(method: str, **settings: tuple[Any, Any]) -> None:
    """Raise for a setting, found and without effect, that an optimizer with a step of its own does not take."""
    for name, (found, usual) in settings.items():
        if found != usual:
            raise InvalidArgument(
                f"{name}: found {found!r} with {method}, expected {usual!r}; its statistics are of one batch, and its "
                "trust region bounds a step"
            )


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


def clipper(clip_grad: Any) -> Callable[[Any], Any]:
    """The function of the gradients that ``clip_grad`` means."""
    if clip_grad is None:
        return unchanged
    if callable(clip_grad):
        return clip_grad
    if isinstance(clip_grad, bool) or not isinstance(clip_grad, int | float) or not 0 < clip_grad < float("inf"):
        raise InvalidArgument(
            f"clip_grad: found {clip_grad!r}, expected a norm > 0, a function of the gradients, or None for no clipping"
        )
    return GlobalNorm(float(clip_grad))


def unchanged(gradients):
    """The gradients as they are."""
    return gradients


class GlobalNorm(nn.Cell):
    """Gradients times ``norm / max(norm, their norm)``."""

    def __init__(self, norm: float) -> None:
        super().__init__(auto_prefix=False)
        self.norm = Tensor(norm, ms.float64)

    def construct(self, gradients):
        """The clipped gradients; the sum of squares is taken in float64, where it cannot overflow."""
        squares = [(ops.cast(gradient, ms.float64) * ops.cast(gradient, ms.float64)).sum() for gradient in gradients]
        total = ops.sqrt(ops.stack(squares).sum())
        factor = self.norm / ops.maximum(self.norm, total)
        return [gradient * ops.cast(factor, gradient.dtype) for gradient in gradients]
