"""Calls of kernels that hypothesis draws: other arrays and hyperparameters with every seed, the same with the same one.

Entries are drawn one by one, so a failure's worst entry names the drawn input whole. Half of them are any numbers, with
hypothesis's preference for simple ones, and half are numbers at the edges of their format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any
from zlib import crc32

import numpy as np

from hessiod.backends.contract import STORED
from hessiod.conformance.formats import FORMATS, Format
from hessiod.conformance.inputs import LARGEST, NONNEGATIVE, landmarks
from hessiod.conformance.measure import Example, Subject

CALLS = 4
ENTRIES = 24
LARGEST_ENTRY = {"float16": 6e4}
"""Squares stay finite in float32; float16 has no larger numbers."""

HYPERPARAMETERS: Mapping[str, tuple[float, float]] = {
    "lr": (1e-7, 2.0),
    "weight_decay": (0.0, 0.5),
    "eps": (1e-12, 1e-3),
    "rho": (1e-3, 1.0),
    "damping": (1e-8, 1.0),
    "sigma": (1e-4, 1.0),
    "beta": (0.0, 0.9999),
    "beta1": (0.0, 0.9999),
    "beta2": (0.0, 0.9999),
    "momentum": (0.0, 0.999),
    "dampening": (0.0, 0.999),
    "hessian_power": (0.25, 1.0),
    "warmup_start": (0.0, 1.0),
}
"""From the least to the greatest that trainers use; what a scalar is worked out from is then off by a few of a double's
last digits, as budgets take it to be."""
COUNTS: Mapping[str, tuple[int, int]] = {
    "step": (1, 10**6),
    "refreshes": (1, 10**5),
    "warmup": (0, 10**4),
    "count": (1, 10**7),
}


@lru_cache(maxsize=256)
def drawn(subject: Subject, dtype: str, seed: int) -> tuple[Example, ...]:
    """The calls that a seed gives a kernel in a dtype, whatever else is run."""
    import hypothesis
    from hypothesis import HealthCheck, Phase

    found: list[Example] = []

    @hypothesis.seed(crc32(f"{seed}/{subject.name}/{dtype}".encode()))
    @hypothesis.settings(
        max_examples=CALLS,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=False,
        backend=provider(),
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(calls(subject, FORMATS[dtype]))
    def collect(call: tuple[tuple[np.ndarray, ...], dict[str, float]]) -> None:
        arrays, values = call
        where = f"drawn with seed {seed}, call {len(found)}"
        found.append(Example(subject, FORMATS[dtype], arrays, {**subject.defaults, **values}, where))

    collect()
    return tuple(found)


@cache
def provider() -> str:
    """The name of hypothesis's own source of draws without the constants of source files.

    hypothesis also draws constants that it finds in the modules that happen to be imported: the same seed would draw
    other inputs in a worker than in a test.
    """
    from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

    class SameEverywhere(HypothesisProvider):
        def _maybe_draw_constant(self, *choice: Any, **settings: Any) -> None:
            return None

    AVAILABLE_PROVIDERS["hessiod"] = SameEverywhere
    return "hessiod"


def repeated(examples: Iterable[Example], shape: tuple[int, ...]) -> tuple[Example, ...]:
    """The same calls with their entries over and over in a shape that a route has compiled already."""
    return tuple(
        replace(example, arrays=tuple(np.resize(array, shape) for array in example.arrays)) for example in examples
    )


def calls(subject: Subject, format: Format) -> Any:
    """A strategy for arrays and hyperparameters of a kernel."""
    from hypothesis import strategies

    arrays = strategies.tuples(*[operand(name, format) for name in subject.kernel.operands])
    known = subject.kernel.hyperparameters
    reals = {name: strategies.floats(*HYPERPARAMETERS[name]) for name in known if name in HYPERPARAMETERS}
    counts = {name: strategies.integers(*COUNTS[name]) for name in known if name in COUNTS}
    return strategies.tuples(arrays, strategies.fixed_dictionaries({**reals, **counts}))


def operand(name: str, format: Format) -> Any:
    """A strategy for the array of an operand: numbers of its format whose squares float32 holds."""
    from hypothesis import strategies

    kept = format if name in STORED else FORMATS[format.container.name]
    bound = min(LARGEST.get(name, 1e18), LARGEST_ENTRY.get(kept.name, 1e18))
    limit = float(np.float32(bound))
    low = 0.0 if name in NONNEGATIVE else -limit
    edges = [value for value in landmarks(kept).astype(float).tolist() if low <= value <= limit]
    numbers = strategies.floats(low, limit, width=64 if kept.digits > 24 else 32)
    entries = strategies.one_of(numbers, strategies.sampled_from(edges))
    full = strategies.lists(entries, min_size=ENTRIES, max_size=ENTRIES)
    return full.map(lambda values: kept.rounded(values).astype(format.container))
