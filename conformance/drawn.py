"""Calls of kernels that hypothesis draws: other arrays and hyperparameters with every seed, the same with the same one.

Entries are drawn one by one, so a failure's worst entry names the drawn input whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hessiod.backends.contract import STORED
from hessiod.conformance.draws import collected, numbers, positive
from hessiod.conformance.example import Example, Subject
from hessiod.conformance.formats import FORMATS, Format
from hessiod.conformance.inputs import LARGEST, NONNEGATIVE, SMALL

CALLS = 4
LARGEST_ENTRY = {"float16": 6e4}
"""Squares stay finite in float32; float16 has no larger numbers."""

MAGNITUDES: Mapping[str, tuple[float, float]] = {
    "lr": (1e-7, 2.0),
    "eps": (1e-12, 1e-3),
    "rho": (1e-3, 1.0),
    "damping": (1e-8, 1.0),
    "sigma": (1e-4, 1.0),
}
SHARES: Mapping[str, tuple[float, float]] = {
    "weight_decay": (0.0, 0.4),
    "dampening": (0.0, 0.999),
    "hessian_power": (0.25, 1.0),
    "warmup_start": (0.0, 1.0),
}
"""The learning rate times the decay stays below 1: there printed formulas take away the whole parameter, and what is
left is less than the last of their 64 bits."""
AVERAGES: Mapping[str, float] = {"beta": 0.9999, "beta1": 0.9999, "beta2": 0.9999, "momentum": 0.999}
"""Of running averages, the most: what is left to 1 is of all magnitudes."""
COUNTS: Mapping[str, tuple[int, int]] = {
    "step": (1, 10**6),
    "refreshes": (1, 10**5),
    "warmup": (0, 10**4),
    "count": (1, 10**7),
}
"""All of these from the least to the greatest that trainers use; what a scalar is worked out from is then off by a few
of a double's last digits, as budgets take it to be."""
HYPERPARAMETERS = frozenset({*MAGNITUDES, *SHARES, *AVERAGES, *COUNTS})


@lru_cache(maxsize=256)
def drawn(subject: Subject, dtype: str, seed: int) -> tuple[Example, ...]:
    """The calls that a seed gives a kernel in a dtype, whatever else is run."""
    format, found = FORMATS[dtype], list[Example]()
    for arrays, values in collected(calls(subject, format), CALLS, f"{seed}/{subject.name}/{dtype}"):
        where = f"drawn with seed {seed}, call {len(found)}"
        found.append(Example(subject, format, arrays, {**subject.defaults, **values}, where))
    return tuple(found)


def repeated(examples: Iterable[Example], shape: tuple[int, ...]) -> tuple[Example, ...]:
    """The same calls with their entries over and over in a shape that a route has compiled already."""
    return tuple(
        replace(example, arrays=tuple(np.resize(array, shape) for array in example.arrays)) for example in examples
    )


def calls(subject: Subject, format: Format) -> Any:
    """A strategy for arrays and hyperparameters of a kernel."""
    from hypothesis import strategies

    arrays = strategies.tuples(*[operand(name, place, format) for place, name in enumerate(subject.kernel.operands)])
    known = subject.kernel.hyperparameters
    values: dict[str, Any] = {name: positive(*MAGNITUDES[name]) for name in known if name in MAGNITUDES}
    values |= {name: strategies.floats(*SHARES[name]) for name in known if name in SHARES}
    values |= {
        name: positive(1 - most, 1.0).map(lambda rest: 1 - rest) for name, most in AVERAGES.items() if name in known
    }
    values |= {name: strategies.integers(*COUNTS[name]) for name in known if name in COUNTS}
    return strategies.tuples(arrays, strategies.fixed_dictionaries(values))


def operand(name: str, place: int, format: Format) -> Any:
    """A strategy for the array of an operand: numbers of its format whose squares float32 holds."""
    kept = format if name in STORED else FORMATS[format.container.name]
    limit = float(np.float32(min(LARGEST.get(name, 1e18), LARGEST_ENTRY.get(kept.name, 1e18))))
    return numbers(SMALL, kept, limit, signed=name not in NONNEGATIVE, place=place)
