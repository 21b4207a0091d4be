"""Level 6: two processes that train together, each with half of every batch, against one that has whole batches.

The runs are level 5's on the digits, with every optimizer: twenty-four steps, curvature refreshed two or three times.

``one-process``  weights and state are those of the one process
``ranks``        what two processes both hold is the same in both, bit for bit; weights are held by all

A sum over the batch that is taken in two parts is rounded otherwise. :data:`BUDGET_ULP` says how far that may lead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from hessiod.backends.contract import Backend
from hessiod.backends.registry import names
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.group import Arrays, Group
from hessiod.conformance.problems import DIGITS
from hessiod.conformance.ranks import STEPS, arguments, trained

COUNT = 2
KINDS = ("one-process", "ranks")
OPTIMIZERS = tuple(name for name in DIGITS.settings if name not in ("sgd", "momentum"))
"""One of SGD's forms stands for all."""
BUDGET_ULP = 4 * STEPS
"""ULP of an array's norm. A step adds an ULP for the order of a sum over the batch on either side, and as much for what
the update makes of it; on these settings no update multiplies what an earlier step left (see ``problems``)."""


def process_checks(backend: Backend, optimizers: Sequence[str] = OPTIMIZERS) -> Iterator[Check]:
    """Level 6 of a backend; its processes are started once, by the first check that is run."""
    group = Group(backend, COUNT)
    processes = getattr(backend, "processes", None)
    for optimizer in optimizers:
        for dtype in processes.dtypes if processes else backend.dtypes[:1]:
            yield Check(
                f"L6/digits.{optimizer}/{backend.name}/{dtype}",
                **identified(backend, level="L6", rule=optimizer, dtype=dtype),
                kinds=KINDS,
                run=partial(spread, backend, group, optimizer, dtype),
                unsupported=reason(backend, DIGITS.config(optimizer).kind),
                slow="L6: several processes",
            )


def reason(backend: Backend, kind: str) -> str:
    """Why a backend has no level 6 of an optimizer; empty if it has."""
    if kind not in backend.optimizers:
        return f"the backend has no optimizer {kind!r}"
    processes = getattr(backend, "processes", None)
    if processes is None:
        return "the backend declares no processes"
    if backend.name not in names():
        return "the backend is not announced under hessiod.backends, so that other processes cannot load it"
    return processes.reason(kind, COUNT)


def spread(backend: Backend, group: Group, optimizer: str, dtype: str) -> Iterator[Finding]:
    """A run on several processes and on one."""
    found = group.train(optimizer, dtype)
    processes = getattr(backend, "processes")  # noqa: B009 - not every backend has them
    alone = trained(processes.alone(**arguments(optimizer, dtype)), optimizer)
    yield near(found, alone, dtype)
    yield alike(found, alone)


def near(found: Sequence[Arrays], alone: Arrays, dtype: str) -> Finding:
    """How far any array that a process holds is from the one process's."""
    worst, at = 0.0, ""
    for rank, arrays in enumerate(found):
        for name, array in arrays.items():
            apart = distance(array, alone[name])
            if not apart <= worst:
                worst, at = apart, f"; worst {name} of process {rank}: {apart:.1e}"
    ulp = float(np.finfo(dtype).eps)
    why = f"within {BUDGET_ULP * ulp:.1e} of the norm of one process's after {STEPS} steps{at}"
    return Finding(KINDS[0], worst <= BUDGET_ULP * ulp, worst / ulp, BUDGET_ULP, why)


def distance(array: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference over the norm."""
    apart, size = (float(np.linalg.norm(part.astype(np.float64))) for part in (array - expected, expected))
    return apart / size if size else apart


def alike(found: Sequence[Arrays], alone: Arrays) -> Finding:
    """Whether processes agree bit for bit on what more than one holds, and all hold the weights."""
    held = {name: [arrays[name].tobytes() for arrays in found if name in arrays] for name in alone}
    missing = [name for name, copies in held.items() if len(copies) < (len(found) if name.startswith("model/") else 1)]
    differ = [name for name, copies in held.items() if len(set(copies)) > 1]
    why = f"{len(held)} arrays are the same on all processes that hold them"
    why += f"; {', '.join(differ)} differ" if differ else ""
    why += f"; {', '.join(missing)} are not held" if missing else ""
    return Finding(KINDS[1], not differ and not missing, None, None, why)
