"""How hypothesis draws for the suite: from a seed the same everywhere, and numbers of all magnitudes.

Hypothesis draws bounded floats evenly, so that nearly all entries would be as large as the bound allows. Here it draws
their binary logarithms; what comes of those is exact, with no library's power function in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import floor, frexp, ldexp, prod
from typing import Any
from zlib import crc32

import numpy as np

from hessiod.conformance.formats import Format
from hessiod.conformance.inputs import landmarks

LEAST = 2.0**-40
"""The smallest magnitude of an ordinary entry, where a format has it; edges are smaller."""


def collected(strategy: Any, count: int, key: str) -> list[Any]:
    """What a strategy gives ``count`` times; ``key`` says what for and holds the seed."""
    import hypothesis
    from hypothesis import HealthCheck, Phase

    found: list[Any] = []

    @hypothesis.seed(crc32(key.encode()))
    @hypothesis.settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=False,
        backend=provider(),
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(drawn: Any) -> None:
        found.append(drawn)

    collect()
    return found


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


def composed(make: Callable[[Callable[[Any], Any]], Any]) -> Any:
    """A strategy of what a function makes, which draws from others as it goes."""
    from hypothesis import strategies

    return strategies.composite(lambda draw: make(draw))()


def array(draw: Callable[[Any], Any], entries: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Draw an array, entry by entry."""
    from hypothesis import strategies

    size = prod(shape)
    return np.array(draw(strategies.lists(entries, min_size=size, max_size=size))).reshape(shape)


def integers(least: int, most: int) -> Any:
    """A strategy for whole numbers."""
    from hypothesis import strategies

    return strategies.integers(least, most)


def between(low: float, high: float) -> Any:
    """A strategy for numbers that float32 holds."""
    from hypothesis import strategies

    return strategies.floats(low, high, width=32, allow_subnormal=False)


def logarithm(value: float) -> float:
    """The binary logarithm of a power of two; between two of them, a straight line.

    >>> logarithm(8.0), logarithm(12.0), magnitude(3.5)
    (3.0, 3.5, 12.0)
    """
    fraction, exponent = frexp(value)
    return exponent - 2 + 2 * fraction


def magnitude(logarithm: float) -> float:
    """The number of a logarithm."""
    whole = floor(logarithm)
    return ldexp(1 + (logarithm - whole), whole)


def positive(low: float, high: float) -> Any:
    """A strategy for positive numbers of all magnitudes between two."""
    from hypothesis import strategies

    logarithms = strategies.floats(logarithm(low), logarithm(high))
    return logarithms.map(lambda drawn: min(max(magnitude(drawn), low), high))


def numbers(shape: tuple[int, ...], format: Format, limit: float, *, signed: bool = True, place: int = 0) -> Any:
    """A strategy for an array: half ordinary numbers, half edges of the format, none beyond the limit.

    Where the edges are depends on ``place``, so that those of one operand meet edges and ordinary numbers of another.
    """
    from hypothesis import strategies

    marks = landmarks(format).astype(np.float64)
    marks = marks[(np.abs(marks) <= limit) & (signed | ~np.signbit(marks))]
    size = prod(shape)
    at_edge = np.arange(size) >> place & 1 == 1
    ordinary = size - int(np.count_nonzero(at_edge))
    least = max(LEAST, float(format.smallest_subnormal))

    def joined(logarithms: list[float], choices: bytes) -> np.ndarray:
        choice = np.frombuffer(choices, np.uint8)
        values = marks[choice % len(marks)]
        signs = np.where(signed & (choice[~at_edge] & 1 == 1), -1.0, 1.0)
        values[~at_edge] = signs * [magnitude(drawn) for drawn in logarithms]
        return format.rounded(np.clip(values, -limit, limit)).astype(format.container).reshape(shape)

    logarithms = strategies.floats(logarithm(least), logarithm(limit))
    return strategies.builds(
        joined,
        strategies.lists(logarithms, min_size=ordinary, max_size=ordinary),
        strategies.binary(min_size=size, max_size=size),
    )
