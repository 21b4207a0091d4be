"""Level 4: each problem, trained by each optimizer, against golden losses and against the other backends.

A loss may differ from the golden one, worked in float64, by 1e-4 relative in the first 50 steps and by 1e-2 up to step
200: rounding moves a sampled target across a class boundary now and then, and from there on the runs are two samples of
the same curve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from hessiod.backends.contract import Backend
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.problems import PROBLEMS, Problem, golden
from hessiod.conformance.runs import Run, leave

BUDGETS: Mapping[int, float] = {50: 1e-4, 200: 1e-2}
FLOAT32_ULP = 2.0**-23
QUICK = "digits.sophia-g"


def trajectory_checks(backends: Sequence[Backend]) -> Iterator[Check]:
    """Level 4 of some backends: each against the golden losses, and against the first that has the optimizer."""
    for problem in PROBLEMS:
        for optimizer in problem.steps:
            yield from checks_of_run(backends, problem, optimizer)


def checks_of_run(backends: Sequence[Backend], problem: Problem, optimizer: str) -> Iterator[Check]:
    """The checks of one run."""
    subject, kind = f"{problem.name}.{optimizer}", problem.config(optimizer).kind
    slow = "" if subject == QUICK else f"L4: training runs but {QUICK}"
    budgets = {str(count): budget for count, budget in BUDGETS.items() if count <= problem.steps[optimizer]}
    able = [backend for backend in backends if kind in backend.optimizers]
    for backend in backends:
        identity = f"L4/{subject}/{backend.name}"
        fields = identified(backend, level="L4", rule=optimizer, dtype="float32")
        yield Check(
            identity,
            **fields,
            kinds=tuple(f"golden/{count}" for count in budgets),
            run=partial(against_golden, backend, problem, optimizer),
            unsupported="" if backend in able else f"the backend has no optimizer {kind!r}",
            slow=slow,
        )
        if backend in able[1:]:
            yield Check(
                f"{identity}/{able[0].name}",
                **fields,
                kinds=tuple(budgets),
                run=partial(compare, against=able[0].name),
                after=(identity, f"L4/{subject}/{able[0].name}"),
                compares=True,
                slow=slow,
            )


def against_golden(backend: Backend, problem: Problem, optimizer: str) -> Iterator[Finding]:
    """A run's distance from the golden one; the first finding carries the losses."""
    run = Run(backend, problem, optimizer)
    found = np.array(run.losses(problem.steps[optimizer]))
    leave(run)
    rows = compare(found, golden()[f"{problem.name}.{optimizer}"], against="golden")
    for number, row in enumerate(rows):
        yield replace(row, kind=f"golden/{row.kind}", data=None if number else found.tolist())


def compare(found: ArrayLike, expected: ArrayLike, *, against: str) -> Iterator[Finding]:
    """One finding for each budget."""
    found, expected = np.asarray(found), np.asarray(expected)
    relative = np.abs(found - expected) / np.abs(expected)
    for steps, budget in BUDGETS.items():
        if steps > len(found):
            continue
        worst = float(np.max(relative[:steps]))
        at = int(np.argmax(relative[:steps])) + 1
        why = f"loss within {budget:g} relative of {against} over {steps} steps; worst {worst:.1e} at step {at}"
        yield Finding(str(steps), worst <= budget, worst / FLOAT32_ULP, budget / FLOAT32_ULP, why)
