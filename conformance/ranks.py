"""One of several processes that train together: ``LAUNCHER -m hessiod.conformance.ranks FOLDER BACKEND [DEVICE]``.

Requests are files of the folder, numbered and read by all processes; each answers with a file of arrays, or with what
the run raised. A process ends with an empty request, or with the launcher.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.contract import Backend
from hessiod.backends.registry import load
from hessiod.backends.training.trainer import Trainer
from hessiod.backends.training.weights import initial_weights
from hessiod.conformance.check import first_line
from hessiod.conformance.problems import DIGITS

STEPS = 24
POLL = 0.02
"""Seconds between two looks at the folder."""


def arguments(optimizer: str, dtype: str) -> dict[str, Any]:
    """What a run's trainer is made of."""
    config = DIGITS.config(optimizer)
    return dict(config=config, weights=initial_weights(config.model, config.seed), dtype=dtype)


def trained(trainer: Trainer, optimizer: str, rank: int = 0, size: int = 1) -> dict[str, np.ndarray]:
    """Weights and state after a process's part of every batch."""
    config, data = DIGITS.config(optimizer), DIGITS.read()
    for step in range(STEPS):
        batch = data.batch(step, seed=config.seed, rows=config.batch)
        inputs, targets = (np.array_split(array, size)[rank] for array in batch)
        trainer.step(inputs, targets)
    return trainer.state()


def serve(folder: Path, backend: Backend) -> None:
    """Answer every request until an empty one."""
    processes = getattr(backend, "processes")  # noqa: B009 - not every backend has them
    rank, size = processes.join()
    for number in count():
        request = awaited(folder / f"{number}.request")
        if not request:
            return
        optimizer, dtype = request.split()
        try:
            arrays = trained(processes.trainer(**arguments(optimizer, dtype)), optimizer, rank, size)
        except Exception as error:
            write_atomically(folder / f"{number}.{rank}.error", first_line(error).encode())
            raise
        answer(folder / f"{number}.{rank}.npz", arrays)


def awaited(path: Path) -> str:
    """A file's text, as soon as it is there."""
    while not path.exists():
        time.sleep(POLL)
    return path.read_text()


def answer(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays so that the file is there when it is whole."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    unfinished.replace(path)


def end_with(parent: int) -> None:
    """End this process when the one that started it is gone, whatever it waits for."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Load the backend and serve."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    folder, name, device = Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
    serve(folder, load(name, device))


if __name__ == "__main__":
    main()
