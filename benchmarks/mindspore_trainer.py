"""What TrainStep and its callbacks cost in MindSpore's Model.train: the time in their own code, as a share of a step.

    python benchmarks/mindspore_trainer.py [--steps 100]

The graphs, the compiled kernels that move the weights, and what a callback was asked for (to write a file, to read the
whole state for a log) are taken off: what remains is what each step pays for the integration. Compilations are over
before the clock starts. Both are times of processors, ours on this thread, a step's on all: waiting is in neither.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import typer
from clock import Clock
from mindspore.train import Model
from rich.console import Console
from rich.table import Table

from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends_mindspore import callbacks
from hessiod.backends_mindspore.fast import HostStep
from hessiod.backends_mindspore.gpt import GPT, CrossEntropy
from hessiod.mindspore import AdamW, Checkpoint, Diagnostics, SophiaG, SophiaH, TrainStep

CONFIG = GPTConfig(vocabulary=256, context=128, width=128, layers=4, heads=4)
ROWS, EVERY = 8, 10
MAKE = {
    "AdamW": lambda params: AdamW(params, learning_rate=1e-4),
    "SophiaG": lambda params: SophiaG(params, learning_rate=1e-4, every=EVERY),
    "SophiaH": lambda params: SophiaH(params, learning_rate=1e-4, every=EVERY),
}


class Tokens:
    """Eight rows of 128 tokens for each step, and the same as targets."""

    def __init__(self, steps: int) -> None:
        generator = np.random.default_rng(0)
        self.rows = generator.integers(CONFIG.vocabulary, size=(steps, ROWS, CONFIG.context)).astype(np.int32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        return self.rows[place], self.rows[place]


def wait_for(clock: Clock, name: str) -> None:
    """Let a graph of TrainStep return when it has ended, and not when it was started."""
    function = getattr(TrainStep, name)

    def ended(self: TrainStep, *inputs: Any) -> Any:
        found = function(self, *inputs)
        for gradient in found[1]:
            gradient.asnumpy()
        return found

    setattr(TrainStep, name, ended)
    clock.undo.append(lambda: setattr(TrainStep, name, function))
    clock.wrap(TrainStep, name, -1)


def watched() -> Clock:
    """A clock on the step and the callbacks, and on what is not their own work."""
    clock = Clock()
    clock.wrap(TrainStep, "__call__", 1)
    for kind in (Checkpoint, Diagnostics):
        for name in (name for name in vars(kind) if name.startswith("on_")):
            clock.wrap(kind, name, 1)
    for name in ("plain_parts", "curved_parts"):
        wait_for(clock, name)
    clock.wrap(HostStep, "take", -1)
    clock.wrap(Checkpoint, "write", -1)
    clock.wrap(callbacks, "scalars", -1)
    return clock


def measured(name: str, steps: int, folder: Path) -> tuple[float, float]:
    """Seconds of all processors and of ours, over so many steps."""
    net = GPT(CONFIG)
    train = TrainStep(net, CrossEntropy(), MAKE[name](net.trainable_params()))
    save, log = Checkpoint(folder / f"{name}.ckpt", train), Diagnostics(lambda values: None, every=100)

    def run(steps: int) -> None:
        data = ms.dataset.GeneratorDataset(Tokens(steps), ["x", "y"], shuffle=False, num_parallel_workers=1)
        Model(train).train(1, data, callbacks=[save, log])

    run(EVERY)
    clock, started = watched(), time.process_time()
    run(steps)
    spent = time.process_time() - started
    for undo in reversed(clock.undo):
        undo()
    return spent, clock.total


def main(steps: int = 100) -> None:
    """Print the share for each optimizer."""
    ms.runtime.dispatch_threads_num(1)
    table = Table("optimizer", "ms a step", "ms of it the integration's", "share")
    with tempfile.TemporaryDirectory() as folder:
        for name in MAKE:
            spent, own = measured(name, steps, Path(folder))
            table.add_row(name, f"{1e3 * spent / steps:.1f}", f"{1e3 * own / steps:.3f}", f"{own / spent:.2%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
