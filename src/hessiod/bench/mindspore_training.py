"""A whole training step in MindSpore on the CPU, from batch to update, against nn.Adam in its own train cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from hessiod.bench.mindspore_curvature import perceptron
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.timing import interleaved
from hessiod.mindspore import AdamW, Apollo, SophiaG, TrainStep

RATE, EVERY = 1e-9, 10
STOCK, GRAPH = "nn.Adam in nn.TrainOneStepCell", "AdamW, one graph"


class OneGraph(TrainStep):
    """The step with its update in the graph, as on devices."""

    def moves_on_host(self) -> bool:
        """Never."""
        return False


def rows(settings: Settings) -> Iterator[Row]:
    """Each optimizer's step in units of the stock one's; Sophia's is the mean over ten steps, one with curvature."""
    ms.runtime.dispatch_threads_num(settings.threads)
    candidates = {
        "AdamW": ours(AdamW),
        GRAPH: ours(AdamW, OneGraph),
        f"SophiaG, every={EVERY}": ours(SophiaG, every=EVERY),
        "Apollo": ours(Apollo),
        STOCK: stock(),
    }
    times = interleaved(candidates, rounds=settings.rounds, calls=EVERY)
    for label in candidates:
        if label != STOCK:
            detail = f"{1e3 * times.median(label):.2f} ms against {1e3 * times.median(STOCK):.2f} ms"
            yield Row("MindSpore, training step", label, STOCK, times.ratio(label, STOCK), "x", detail=detail)


def ours(kind: Any, step: type[TrainStep] = TrainStep, **options: Any) -> Callable[[], Any]:
    """A TrainStep on a net of its own."""
    net, batch = perceptron()
    net.set_train()
    return ended(step(net, nn.CrossEntropyLoss(), kind(net.trainable_params(), learning_rate=RATE, **options)), batch)


class Jitted(nn.Cell):
    """Somebody else's train cell as one graph, as ours is."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell, self.optimizer = cell, cell.optimizer

    @ms.jit
    def construct(self, *inputs):
        """One step."""
        return self.cell(*inputs)


def stock() -> Callable[[], Any]:
    """MindSpore's own."""
    net, batch = perceptron()
    net.set_train()
    optimizer = nn.Adam(net.trainable_params(), learning_rate=RATE)
    return ended(Jitted(nn.TrainOneStepCell(nn.WithLossCell(net, nn.CrossEntropyLoss()), optimizer)), batch)


def ended(train: Any, batch: tuple[Tensor, Tensor]) -> Callable[[], Any]:
    """A step that has ended when it returns."""

    def step() -> None:
        train(*batch)
        train.optimizer.parameters[-1].asnumpy()

    return step
