"""Training runs that levels 4 and 5 share: what level 4 has trained, level 5 does not train again.

A framework that compiles a run takes longer for that than for the steps. For the same reason the trainer that takes up
a backend's own file takes up the others' after it, with everything that it holds by then to be replaced.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hessiod.backends.contract import Backend
from hessiod.backends.training.trainer import Trainer
from hessiod.backends.training.weights import initial_weights
from hessiod.conformance.problems import Problem

CUT = 12
"""The steps before the checkpoint of level 5."""


def begun(backend: Backend, problem: Problem, optimizer: str) -> Trainer:
    """A run before its first step; the warm-up spans the cut."""
    config = problem.config(optimizer)
    return backend.trainer(config=config, weights=initial_weights(config.model, config.seed))


def advance(trainer: Trainer, problem: Problem, optimizer: str, start: int, stop: int) -> list[float]:
    """The losses of some steps."""
    config, data = problem.config(optimizer), problem.read()
    batches = (data.batch(step, seed=config.seed, rows=config.batch) for step in range(start, stop))
    return [trainer.step(inputs, targets).loss for inputs, targets in batches]


class Run:
    """A run as far as it has been asked for, with the file that it saved at the cut."""

    def __init__(self, backend: Backend, problem: Problem, optimizer: str) -> None:
        self.backend, self.problem, self.optimizer = backend, problem, optimizer
        self.trainer = begun(backend, problem, optimizer)
        self.found: list[float] = []
        self.file: bytes | Exception = b""

    def losses(self, steps: int) -> list[float]:
        """The losses of the first steps."""
        for stop in (min(CUT, steps), steps):
            self.found += advance(self.trainer, self.problem, self.optimizer, len(self.found), stop)
            if len(self.found) == CUT and not self.file and getattr(self.backend, "checkpoints", True):
                self.save()
        return self.found[:steps]

    def save(self) -> None:
        """Keep the checkpoint, or why there is none: that is level 5's to say."""
        with TemporaryDirectory() as folder:
            try:
                self.trainer.save(Path(folder) / "cut", None)
                self.file = (Path(folder) / "cut").read_bytes()
            except Exception as error:
                self.file = error

    def saved(self) -> bytes:
        """The file that was saved at the cut."""
        if isinstance(self.file, Exception):
            raise self.file
        return self.file


_left: list[Run] = []


def leave(run: Run) -> None:
    """Leave a run to the next check that asks for it; the one before is forgotten."""
    _left[:] = [run]


def left_or_begun(backend: Backend, problem: Problem, optimizer: str) -> Run:
    """The run that was left, if it is this one; otherwise a new one. Whoever gets it has it alone."""
    found = _left.pop() if _left else None
    if found and (found.backend, found.problem, found.optimizer) == (backend, problem, optimizer):
        return found
    return Run(backend, problem, optimizer)


_resumed: dict[str, tuple[Problem, str, Trainer]] = {}
"""Of each backend, the last."""


def take_up(backend: Backend, problem: Problem, optimizer: str, file: bytes, anew: bool) -> Trainer:
    """A trainer that has loaded a file: a new one, or the last one if it was of the same run."""
    kept, kind, trainer = _resumed.get(backend.name, (None, "", None))
    if anew or trainer is None or (kept, kind) != (problem, optimizer):
        trainer = begun(backend, problem, optimizer)
        _resumed[backend.name] = problem, optimizer, trainer
    with TemporaryDirectory() as folder:
        (Path(folder) / "cut").write_bytes(file)
        trainer.load(Path(folder) / "cut")
    return trainer
