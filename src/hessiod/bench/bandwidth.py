"""How fast this machine moves memory: the limit of every step, measured beside it."""

from __future__ import annotations

from typing import Any

from hessiod.backends.kernels.library import Sweep, compiled
from hessiod.core.rule import Kernel


def no_hyperparameters() -> dict[str, float]:
    """For kernels without scalars that depend on anything."""
    return {}


def stream(reads: int, writes: int) -> Sweep:
    """A compiled loop that reads some float32 arrays and writes the first of them again: their average, nothing more.

    >>> sweep = stream(4, 2)
    >>> sweep.program.operands, sweep.program.results
    (('param', 'a1', 'a2', 'a3'), ('param', 'a1'))
    """
    names = ("param", *[f"a{number}" for number in range(1, reads)])

    def average(xp: Any, *arrays: Any) -> Any:
        total = arrays[0]
        for other in arrays[1:]:
            total = total + other
        return tuple([total * 0.25] * writes)

    return compiled((Kernel(average, no_hyperparameters, names, names[:writes]),), "float32", "float32", "float32")
