"""What a training step computes in a graph: gradients, curvature, and the move, on one batch or on micro-batches."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.clipping import clipper
from hessiod.backends_mindspore.curvature import Loss
from hessiod.backends_mindspore.derivatives.cures.marker import under_cures
from hessiod.backends_mindspore.holder import Holder
from hessiod.backends_mindspore.parallel import Processes
from hessiod.backends_mindspore.second_order import CurvatureOptimizer, HutchinsonOptimizer
from hessiod.backends_mindspore.slots import zeros_for


class StepGraph(Holder):
    """The graphs of a step; :class:`~hessiod.mindspore.TrainStep` calls them from the host.

    ``net``, ``loss_fn`` and ``optimizer`` as there; a loss scale, processes and micro-batches, all checked.
    """

    def __init__(
        self,
        net: nn.Cell,
        loss_fn: Any,
        optimizer: RuleOptimizer,
        *,
        loss_scale: Any,
        processes: Processes,
        accumulation: int,
        clip_grad: Any,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer, self.weights = optimizer, optimizer.parameters
        self.loss_scale, self.processes, self.size = loss_scale, processes, processes.size
        self.clip, self.clips = clipper(clip_grad), clip_grad is not None
        self.loss = Loss(net, loss_fn)
        self.second_order = isinstance(optimizer, CurvatureOptimizer)
        if isinstance(optimizer, CurvatureOptimizer):
            self.every, self.curvature_first = optimizer.every, optimizer.curvature_first
            self.estimate = optimizer.estimate_with(net, loss_fn, processes)
        self.twice = isinstance(optimizer, HutchinsonOptimizer)
        self.accumulation, self.none = accumulation, Tensor(0, ms.float64)
        self.micro = Parameter(Tensor(0, ms.int32), name="micro_batch", requires_grad=False)

    def bind_sums(self) -> None:
        """What is kept between the micro-batches of a step; not more than the first for a first-order rule."""
        self.share = Tensor(1.0 / self.accumulation, ms.float64)
        self.gradient_sums = zeros_for(self.weights, "gradient_sum")
        if self.second_order:
            self.curvature_sums = zeros_for(self.weights, "curvature_sum")
            self.curvature_count = Parameter(Tensor(0, ms.float64), name="curvature_count", requires_grad=False)

    def curvature_is_due(self):
        """Whether this step wants an estimate."""
        step = self.optimizer.global_step[0]
        return ops.logical_and(step >= self.curvature_first, step % self.every == 0)

    def together(self, gradients, totals, count):
        """Gradients, curvature totals and their count, added up over the processes."""
        if self.size == 1:
            return gradients, totals, count
        found = self.processes.summed((*gradients, *totals, count))
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
