"""The training step: one graph that trains, one that also takes statistics, and the host's work between them.

MindSpore has no Cholesky on Ascend, its own on the CPU is slower than numpy's, and a policy decides step by step. So
statistics come out of one graph, the host works out factors and inverses and writes them into Parameters, and a second
graph takes the step from the gradients. Steps that want no statistics are one graph as a whole. Each is compiled once.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import ParameterTuple, Tensor, mutable, nn, ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.curvature import Forward, Loss
from hessiod.backends_mindspore.holder import Holder
from hessiod.backends_mindspore.kronecker.taps import Tap, tapped
from hessiod.core.likelihood import RESIDUALS


class Statistics(Holder):
    """Loss, number of targets, gradients, and the derivatives with respect to the probes, which are the statistics.

    A target is ignored (padding, a mask of the user's) when the loss does not depend on its logits.
    """

    def __init__(self, net: nn.Cell, loss_fn: Any, weights: ParameterTuple, probes: list[Any], settings: Any) -> None:
        super().__init__(auto_prefix=False)
        self.forward, self.loss_fn = Forward(net), loss_fn
        self.everything, self.number = ParameterTuple([*weights, *probes]), len(weights)
        self.empirical, self.reduction = settings["fisher"] == "empirical", settings["reduction"]
        seed = settings["seed"]
        self.seed = seed - 2**64 if seed >= 2**63 else seed  # a graph's integers are int64: the same bits
        self.residual, self.by_row = RESIDUALS[settings["likelihood"]], settings["likelihood"] == "categorical"

    @ms.jit
    def construct(self, step, scale, *inputs):
        """See the class."""
        logits, pull_back = ms.vjp(self.forward, inputs, weights=self.everything)
        loss, slope = ms.value_and_grad(self.loss_fn, 0)(logits, inputs[-1])
        found = pull_back(slope * ops.cast(scale, slope.dtype))[-1]
        used = slope != 0
        if self.by_row:
            used = used.any(-1, True)
        targets = self.count(logits, used)
        gradients, sums = found[: self.number], found[self.number :]
        if not self.empirical:
            wide = logits if logits.dtype == ms.float64 else ops.cast(logits, ms.float32)
            residual = self.residual(xp, wide, self.seed, step, 0) * ops.cast(used, wide.dtype)
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


class Update(Holder):
    """The step from gradients, and the loss scale after it."""

    def __init__(self, optimizer: Any, loss_scale: Any) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer, self.loss_scale = optimizer, loss_scale

    def move(self, good, gradients):
        """Move, if everything is finite."""
        factor = 1.0 / ops.cast(self.loss_scale.current(), ms.float64)
        return self.loss_scale.settle(self.optimizer.bounded_step(gradients, good, factor))

    @ms.jit
    def construct(self, good, gradients):
        """The same as a graph of its own."""
        return self.move(good, gradients)


class PlainStep(Update):
    """Forward, backward and update."""

    def __init__(self, loss: Loss, optimizer: Any, loss_scale: Any) -> None:
        super().__init__(optimizer, loss_scale)
        self.loss, self.weights = loss, optimizer.trained

    @ms.jit
    def construct(self, good, *inputs):
        """The loss."""
        scale = self.loss_scale.current()
        (_, loss), gradients = ms.value_and_grad(self.loss, None, self.weights, has_aux=True)(scale, inputs)
        self.move(good, gradients)
        return loss


class KroneckerStep(Holder):
    """``loss = step(*inputs, target)``; ``hessiod.mindspore.TrainStep`` builds one."""

    def __init__(self, net: nn.Cell, loss_fn: Any, optimizer: Any, loss_scale: Any) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer, self.layers, self.loss_scale = optimizer, optimizer.layers, loss_scale
        self.taps = [Tap(layer) for layer in optimizer.layers]
        probes = [probe for tap in self.taps for probe in tap.probes()]
        self.plain = PlainStep(Loss(net, loss_fn), optimizer, loss_scale)
        self.update = Update(optimizer, loss_scale)
        self.statistics = Statistics(net, loss_fn, optimizer.trained, probes, optimizer.settings)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """One step on a batch whose last input is the target."""
        optimizer = self.optimizer
        if not optimizer.curvature_due:
            with optimizer.refreshed({}, 1.0, 1.0) as good:
                return self.plain(Tensor(good), *inputs)
        step, scale = Tensor(optimizer.steps + 1, ms.int64), self.loss_scale.current()
        with tapped(self.layers, self.taps):
            loss, targets, gradients, sums = self.statistics(step, scale, *inputs)
        numbers = float(targets.asnumpy()), float(scale.asnumpy())
        with optimizer.refreshed(self.by_layer(sums), *numbers) as good:
            self.update(Tensor(good), mutable(tuple(gradients)))
        return loss

    def by_layer(self, sums: Any) -> dict[Any, dict[str, Any]]:
        """Each layer's sums and its number of rows."""
        arrays = iter(sums)
        return {layer: {name: next(arrays).asnumpy() for name in (*layer.statistics, "rows")} for layer in self.layers}
