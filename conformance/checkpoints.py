"""Level 5: a run that is cut, saved on one backend and taken up on another, against the runs that were not cut.

The runs are level 4's: every optimizer on the digits, Sophia on the character GPT as well; and methods with Kronecker
factors on the digits. A run goes twelve steps on the first backend and twelve on the second, with curvature refreshed
on both sides of the cut. Its losses are compared with those of all the steps on the first and on the second, within
level 4's tolerance; the arrays that the second saves without a step must be those that the first saved, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hessiod.backends.checkpoint import Container
from hessiod.backends.contract import Backend
from hessiod.backends.training.trainer import Trainer
from hessiod.backends.training.weights import initial_weights
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.problems import DIGITS, FACTORED, GPT, Problem
from hessiod.conformance.trajectories import BUDGETS, FLOAT32_ULP

CUT, END = 12, 24
BUDGET = BUDGETS[50]
QUICK = "digits.adamw"


def begun(backend: Backend, problem: Problem, optimizer: str) -> Trainer:
    """A run before its first step; the warm-up spans the cut."""
    config = problem.config(optimizer)
    return backend.trainer(config=config, weights=initial_weights(config.model, config.seed))


def advance(trainer: Trainer, problem: Problem, optimizer: str, start: int, stop: int) -> list[float]:
    """The losses of some steps."""
    config, data = problem.config(optimizer), problem.read()
    batches = (data.batch(step, seed=config.seed, rows=config.batch) for step in range(start, stop))
    return [trainer.step(inputs, targets).loss for inputs, targets in batches]


def uncut(backend: Backend, problem: Problem, optimizer: str) -> Iterator[Finding]:
    """A run without a cut, and its checkpoint taken up by the same backend: the same bits."""
    trainer = begun(backend, problem, optimizer)
    losses = advance(trainer, problem, optimizer, 0, CUT)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cut"
        trainer.save(path, None)
        losses += advance(trainer, problem, optimizer, CUT, END)
        resumed = begun(backend, problem, optimizer)
        resumed.load(path)
    again = advance(resumed, problem, optimizer, CUT, END)
    differ = sum(one != other for one, other in zip(losses[CUT:], again, strict=True))
    why = f"saved at step {CUT} and taken up here, steps to {END} have the same losses bit for bit; {differ} differ"
    yield Finding("resumed", differ == 0, None, None, why, losses)


def moved(
    first: Backend, second: Backend, problem: Problem, optimizer: str, *uncut_losses: Sequence[float]
) -> Iterator[Finding]:
    """A run that moves at the cut; ``uncut_losses`` are those of the run on the first and on the second alone."""
    with TemporaryDirectory() as folder:
        there, here = Path(folder) / "there", Path(folder) / "here"
        trainer = begun(first, problem, optimizer)
        losses = advance(trainer, problem, optimizer, 0, CUT)
        trainer.save(there, None)
        resumed = begun(second, problem, optimizer)
        resumed.load(there)
        resumed.save(here, None)
        yield same_arrays(there, here)
    losses += advance(resumed, problem, optimizer, CUT, END)
    for backend, expected in zip((first, second), uncut_losses, strict=True):
        yield distance(np.array(losses), np.array(expected), backend.name)


def same_arrays(one: Path, other: Path) -> Finding:
    """Whether two files hold the same arrays, bit for bit."""
    with Container(one) as saved, Container(other) as again:
        differ = [name for name, entry in saved.entries.items() if entry.sha256 != again.entries[name].sha256]
        same = saved.content == again.content
        count = len(saved.entries)
    why = f"taken up and saved again, {count} arrays have the same SHA-256; {', '.join(differ) or 'none'} differ"
    return Finding("arrays", same, None, None, why)


def distance(found: np.ndarray, expected: np.ndarray, against: str) -> Finding:
    """How far the losses are from a run's that was not cut."""
    relative = np.abs(found - expected) / np.abs(expected)
    worst, at = float(np.max(relative)), int(np.argmax(relative)) + 1
    why = f"loss within {BUDGET:g} relative of {END} steps on {against}; worst {worst:.1e} at step {at}"
    return Finding(f"all-{against}", worst <= BUDGET, worst / FLOAT32_ULP, BUDGET / FLOAT32_ULP, why)


def checkpoint_checks(backends: Sequence[Backend]) -> Iterator[Check]:
    """Level 5 of some backends: each with itself, and every two of them in both directions."""
    for problem, optimizers in ((DIGITS, DIGITS.settings), (FACTORED, FACTORED.settings), (GPT, ("sophia-g",))):
        for optimizer in optimizers:
            yield from run_checks(backends, problem, optimizer)


def reason(backend: Backend, kind: str) -> str:
    """Why a backend has no level 5 of an optimizer; empty if it has."""
    if kind not in backend.optimizers:
        return f"the backend has no optimizer {kind!r}"
    return "" if getattr(backend, "checkpoints", True) else "the backend writes no checkpoints"


def run_checks(backends: Sequence[Backend], problem: Problem, optimizer: str) -> Iterator[Check]:
    """The checks of one run."""
    subject, kind = f"L5/{problem.name}.{optimizer}", problem.config(optimizer).kind
    slow = "" if subject == f"L5/{QUICK}" else f"L5: runs but {QUICK}"
    reasons = {backend.name: reason(backend, kind) for backend in backends}
    able = [backend for backend in backends if not reasons[backend.name]]
    for backend in backends:
        yield Check(
            f"{subject}/{backend.name}",
            **identified(backend, level="L5", rule=optimizer, dtype="float32"),
            kinds=("resumed",),
            run=partial(uncut, backend, problem, optimizer),
            unsupported=reasons[backend.name],
            slow=slow,
        )
    for first, second in permutations(able, 2):
        yield Check(
            f"{subject}/{first.name}-{second.name}",
            **identified(second, level="L5", rule=optimizer, dtype="float32"),
            kinds=("arrays", f"all-{first.name}", f"all-{second.name}"),
            run=partial(moved, first, second, problem, optimizer),
            after=(f"{subject}/{first.name}", f"{subject}/{second.name}"),
            slow=slow,
        )
