"""The graphs of a training step with a Kronecker optimizer; :mod:`.step` calls them from the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.curvature import Forward, Loss, targets_of, widened
from hessiod.backends_mindspore.holder import Holder
from hessiod.backends_mindspore.parallel import Processes
from hessiod.backends_mindspore.slots import zeros_for
from hessiod.core.likelihood import RESIDUALS


class Statistics(Holder):
    """Loss, number of targets, gradients, and the derivatives with respect to the probes, which are the statistics.

    A target is ignored (padding, a mask of the user's) when the loss does not depend on its logits.
    """

    def __init__(
        self,
        net: nn.Cell,
        loss_fn: Any,
        weights: ParameterTuple,
        probes: list[Any],
        settings: Any,
        processes: Processes,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.forward, self.loss_fn, self.processes = Forward(net), loss_fn, processes
        self.everything, self.number = ParameterTuple([*weights, *probes]), len(weights)
        self.empirical, self.reduction = settings["fisher"] == "empirical", settings["reduction"]
        seed = settings["seed"]
        self.seed = seed - 2**64 if seed >= 2**63 else seed  # a graph's integers are int64: the same bits
        self.residual, self.by_row = RESIDUALS[settings["likelihood"]], settings["likelihood"] == "categorical"

    @ms.jit
    def construct(self, step, number, scale, *inputs):
        """See the class; ``number`` is the micro-batch's."""
        logits, pull_back = ms.vjp(self.forward, inputs, weights=self.everything)
        loss, slope = ms.value_and_grad(self.loss_fn, 0)(logits, inputs[-1])
        found = pull_back(slope * ops.cast(scale, slope.dtype))[-1]
        used = slope != 0
        if self.by_row:
            used = used.any(-1, True)
        targets = self.count(logits, used)
        gradients, sums = found[: self.number], found[self.number :]
        if not self.empirical:
            wide = widened(logits)
            first = self.processes.place_of(targets_of(logits, self.by_row))
            residual = self.residual(xp, wide, self.seed, step, number, first) * ops.cast(used, wide.dtype)
            sums = pull_back(ops.cast(residual, logits.dtype))[-1][self.number :]
        return loss, targets, gradients, sums

    def count(self, logits, used):
        """How many targets the loss averages."""
        total = ops.cast(used, ms.float32).sum()
        if self.reduction == "batchmean":
            total = ops.zeros_like(total) + logits.shape[0]
        elif self.reduction == "sum":
            total = ops.ones_like(total)
        return total


class Gradients(Holder):
    """Loss and scaled gradients of a micro-batch."""

    def __init__(self, loss: Loss, weights: ParameterTuple, loss_scale: Any) -> None:
        super().__init__(auto_prefix=False)
        self.loss, self.weights, self.loss_scale = loss, weights, loss_scale

    @ms.jit
    def construct(self, *inputs):
        """The two."""
        scale = self.loss_scale.current()
        (_, loss), gradients = ms.value_and_grad(self.loss, None, self.weights, has_aux=True)(scale, inputs)
        return loss, gradients


class Collect(Holder):
    """Sums of the gradients of micro-batches, in float32 at least."""

    def __init__(self, weights: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.totals = zeros_for(weights, "gradient_sum")

    @ms.jit
    def construct(self, first, gradients):
        """The sums, this micro-batch's gradients included; its alone if it is the first."""
        found = [
            ops.where(first, ops.cast(gradient, total.dtype), total + ops.cast(gradient, total.dtype))
            for total, gradient in zip(self.totals, gradients)  # noqa: B905 - strict= cannot be traced
        ]
        for total, value in zip(self.totals, found):  # noqa: B905
            ops.assign(total, value)
        return found


class Update(Holder):
    """The step from the gradients' sums over micro-batches, and the loss scale after it."""

    def __init__(
        self,
        optimizer: Any,
        loss_scale: Any,
        processes: Processes,
        accumulation: int,
        clip: Callable[[Any], Any] | None,
        adaptation: Any,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer, self.loss_scale, self.processes = optimizer, loss_scale, processes
        self.clip, self.adaptation = clip, adaptation
        self.parts = Tensor(accumulation * processes.size, ms.float64)

    def move(self, good, gradients):
        """Move by the mean over micro-batches and processes, if everything is finite."""
        gradients = self.processes.summed(gradients)
        factor = 1.0 / (ops.cast(self.loss_scale.current(), ms.float64) * self.parts)
        gradients = self.optimizer.unscaled_all(gradients, factor)
        good = ops.logical_and(good, self.optimizer.all_found_finite(gradients))
        if self.clip is not None:
            gradients = self.clip(gradients)
        if self.adaptation is not None:
            self.adaptation.keep(gradients)
        return self.loss_scale.settle(self.optimizer.bounded_step(gradients, good))

    @ms.jit
    def construct(self, good, gradients):
        """The same as a graph of its own."""
        return self.move(good, gradients)


class PlainStep(Holder):
    """Forward, backward and update."""

    def __init__(self, update: Update, loss: Loss, weights: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.update, self.loss, self.weights = update, loss, weights

    @ms.jit
    def construct(self, good, *inputs):
        """The loss."""
        scale = self.update.loss_scale.current()
        (_, loss), gradients = ms.value_and_grad(self.loss, None, self.weights, has_aux=True)(scale, inputs)
        self.update.move(good, gradients)
        return loss
