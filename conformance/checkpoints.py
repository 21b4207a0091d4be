"""Level 5: a run that is cut, saved on one backend and taken up on another, against the runs that were not cut.

The runs are level 4's: every optimizer on the digits, Sophia on the character GPT as well. A run goes twelve steps on
the first backend and twelve on the second, with curvature refreshed on both sides of the cut; the first half is that of
the run which is not cut. The losses are compared with those of all the steps on the first and on the second, within
level 4's tolerance; the arrays that the second saves without a step must be those that the first saved, bit for bit.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hessiod.backends.checkpoint import Container
from hessiod.backends.contract import Backend
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.problems import DIGITS, GPT, Problem
from hessiod.conformance.runs import CUT, advance, left_or_begun, take_up
from hessiod.conformance.trajectories import BUDGETS, FLOAT32_ULP

END = 24
QUICK = "digits.adamw"
BUDGET = BUDGETS[50]


def uncut(backend: Backend, problem: Problem, optimizer: str) -> Iterator[Finding]:
    """A run without a cut, and its checkpoint taken up by the same backend: the same bits."""
    run = left_or_begun(backend, problem, optimizer)
    losses, saved = run.losses(END), run.saved()
    resumed = take_up(backend, problem, optimizer, saved, anew=True)
    again = advance(resumed, problem, optimizer, CUT, END)
    differ = sum(one != other for one, other in zip(losses[CUT:], again, strict=True))
    why = f"saved at step {CUT} and taken up here, steps to {END} have the same losses bit for bit; {differ} differ"
    yield Finding("resumed", differ == 0, None, None, why, {"losses": losses, "saved": b64encode(saved).decode()})


def moved(
    first: str, second: Backend, problem: Problem, optimizer: str, there: dict[str, Any], here: dict[str, Any]
) -> Iterator[Finding]:
    """A run that moves at the cut, from the first backend's file to the second; :func:`uncut` gives both's data."""
    with TemporaryDirectory() as folder:
        given, again = Path(folder) / "given", Path(folder) / "again"
        given.write_bytes(b64decode(there["saved"]))
        resumed = take_up(second, problem, optimizer, given.read_bytes(), anew=False)
        resumed.save(again, None)
        yield same_arrays(given, again)
    losses = np.array(there["losses"][:CUT] + advance(resumed, problem, optimizer, CUT, END))
    for name, run in ((first, there), (second.name, here)):
        yield distance(losses, np.array(run["losses"]), name)


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


def checkpoint_checks(backends: Sequence[Backend], elsewhere: Sequence[str] = ()) -> Iterator[Check]:
    """Level 5 of some backends: each with itself, and every two of them in both directions.

    Runs may also come from backends ``elsewhere``, in another process.
    """
    for problem, optimizers in ((DIGITS, DIGITS.settings), (GPT, ("sophia-g",))):
        for optimizer in optimizers:
            yield from run_checks(backends, problem, optimizer, elsewhere)


def reason(backend: Backend, kind: str) -> str:
    """Why a backend has no level 5 of an optimizer; empty if it has."""
    if kind not in backend.optimizers:
        return f"the backend has no optimizer {kind!r}"
    return "" if getattr(backend, "checkpoints", True) else "the backend writes no checkpoints"


def run_checks(
    backends: Sequence[Backend], problem: Problem, optimizer: str, elsewhere: Sequence[str]
) -> Iterator[Check]:
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
    sources = dict.fromkeys((*(backend.name for backend in able), *elsewhere))
    for first, second in ((name, backend) for name in sources for backend in able if name != backend.name):
        yield Check(
            f"{subject}/{first}-{second.name}",
            **identified(second, level="L5", rule=optimizer, dtype="float32"),
            kinds=("arrays", f"all-{first}", f"all-{second.name}"),
            run=partial(moved, first, second, problem, optimizer),
            after=(f"{subject}/{first}", f"{subject}/{second.name}"),
            slow=slow,
        )
