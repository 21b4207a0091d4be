"""The training step: one graph that trains, one that also takes statistics, and the host's work between them.

MindSpore has no Cholesky on Ascend, its own on the CPU is slower than numpy's, and a policy decides step by step. So
statistics come out of one graph, the host works out factors and inverses and writes them into Parameters, and a second
graph takes the step from the gradients. Steps on one batch that want no statistics are one graph as a whole. Each is
compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mutable, nn

from hessiod.backends_mindspore.curvature import Loss
from hessiod.backends_mindspore.holder import Holder, put
from hessiod.backends_mindspore.kronecker.adaptation import Adaptation
from hessiod.backends_mindspore.kronecker.cluster import Cluster
from hessiod.backends_mindspore.kronecker.graphs import Collect, Gradients, PlainStep, Statistics, Update
from hessiod.backends_mindspore.kronecker.refresh import refreshed
from hessiod.backends_mindspore.kronecker.sums import Sums
from hessiod.backends_mindspore.kronecker.taps import Tap, tapped
from hessiod.backends_mindspore.parallel import Processes


class KroneckerStep(Holder):
    """``loss = step(*inputs, target)``; ``hessiod.mindspore.TrainStep`` builds one.

    ``micro`` holds how many micro-batches of the coming step were taken.
    """

    def __init__(
        self,
        net: nn.Cell,
        loss_fn: Any,
        optimizer: Any,
        *,
        loss_scale: Any,
        processes: Processes,
        accumulation: int,
        clip: Callable[[Any], Any] | None,
        micro: Parameter,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer, self.layers, self.loss_scale = optimizer, optimizer.layers, loss_scale
        self.accumulation, self.micro = accumulation, micro
        block, self.empirical = optimizer.settings["block_size"], optimizer.settings["fisher"] == "empirical"
        self.cluster = Cluster(processes, optimizer.placement, self.layers, block)
        self.taps = [Tap(layer) for layer in optimizer.layers]
        probes = [probe for tap in self.taps for probe in tap.probes()]
        self.adaptation = Adaptation(net, loss_fn, optimizer) if optimizer.adapt_every else None
        loss = Loss(net, loss_fn)
        self.update = Update(optimizer, loss_scale, processes, accumulation, clip, self.adaptation)
        self.plain = PlainStep(self.update, loss, optimizer.trained)
        self.statistics = Statistics(net, loss_fn, optimizer.trained, probes, optimizer.settings, processes)
        if accumulation > 1:
            self.gradients = Gradients(loss, optimizer.trained, loss_scale)
            self.collect = Collect(optimizer.trained)
        self.forget()

    def forget(self) -> None:
        """Forget the micro-batches that were taken."""
        self.sums: Sums | None = None
        self.taken: list[tuple[tuple[Tensor, ...], Tensor]] = []
        put(self.micro, np.array(0, np.int32))

    def __call__(self, *inputs: Tensor) -> Tensor:
        """One step, or one micro-batch of it, on a batch whose last input is the target."""
        try:
            if self.accumulation == 1 and not self.optimizer.curvature_due:
                return self.plain_step(inputs)
            return self.micro_batch(inputs)
        except BaseException:
            self.forget()
            raise

    def plain_step(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """A step on one batch that wants no statistics."""
        with self.adapting(), refreshed(self.optimizer, {}, self.scale(), self.cluster) as good:
            loss = self.plain(Tensor(good), *inputs)
            self.taken = [(inputs, loss)]
        return loss

    def micro_batch(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Gather a micro-batch, and move after the last."""
        number = int(self.micro.asnumpy())
        last = number == self.accumulation - 1
        loss, gradients = self.gather(number, inputs) if self.optimizer.curvature_due else self.gradients(*inputs)
        if self.accumulation > 1:
            gradients = self.collect(Tensor(number == 0), mutable(tuple(gradients)))
        if self.adaptation is not None:
            self.taken.append((inputs, loss))
        put(self.micro, np.array(number + 1, np.int32))
        if last:
            self.move(gradients)
        return loss

    def gather(self, number: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        """The loss and gradients of a micro-batch, whose statistics are added to the step's."""
        if self.sums is None:
            self.sums = Sums(self.optimizer.wanted(), self.empirical)
        step, scale = Tensor(self.optimizer.steps + 1, ms.int64), self.loss_scale.current()
        with tapped(self.layers, self.taps):
            loss, targets, gradients, sums = self.statistics(step, Tensor(number, ms.int64), scale, *inputs)
        self.sums.add(self.by_layer(sums), float(targets.asnumpy()), float(scale.asnumpy()))
        return loss, gradients

    def move(self, gradients: Any) -> None:
        """Take the step, from what all micro-batches on all processes brought."""
        statistics = {}
        if self.sums is not None:
            self.cluster.share(self.sums)
            statistics = self.sums.statistics()
        with self.adapting(), refreshed(self.optimizer, statistics, self.scale(), self.cluster) as good:
            self.update(Tensor(good), mutable(tuple(gradients)))
        self.forget()

    @contextmanager
    def adapting(self) -> Iterator[None]:
        """Levenberg-Marquardt: where that is due, hold the step against its prediction after it was taken."""
        if self.adaptation is None or not self.adaptation.due:
            yield
            return
        steps, earlier = self.optimizer.steps, self.adaptation.weights()
        yield
        if self.optimizer.steps > steps:
            losses = self.adaptation.losses(self.taken)
            self.adaptation.settle(earlier, *self.cluster.mean(losses))

    def scale(self) -> float:
        """The present loss scale."""
        return float(self.loss_scale.current().asnumpy())

    def by_layer(self, sums: Any) -> dict[Any, dict[str, Any]]:
        """Each layer's sums and its number of rows."""
        arrays = iter(sums)
        return {layer: {name: next(arrays).asnumpy() for name in (*layer.statistics, "rows")} for layer in self.layers}
