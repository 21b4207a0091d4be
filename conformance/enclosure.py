"""Which results may a correct evaluation of a kernel have? Interval arithmetic over the kernel itself answers.

An :class:`Interval` runs through a kernel in the place of an array. After every operation that rounds, it is widened by
what an implementation may do there, so the result encloses every faithful evaluation and nothing else. Budgets are
therefore counted from the kernel's own operations, element by element, cancellation included; none is tuned by hand.

Two kinds of widening:

rounding
    Half an ULP each way: any rounding to nearest, any fusing of a product and a sum. Endpoints are computed in extended
    precision.
agreement
    None: every operation has the one result that is rounded to nearest. Endpoints are computed in the kernel's own
    dtype, so the enclosure is one number, and the result must agree bit for bit.

In both, a sum over n entries may be taken in any order, which costs ``n / 2`` ULP of the sum of magnitudes; a power may
be 2 ULP off; and where a route flushes denormals, they may become zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hessiod.conformance.formats import FORMATS, Format


@dataclass(frozen=True)
class Widening:
    """What an operation in a format may add to the exact result of its operands."""

    format: Format
    rounds: bool
    flushes: bool

    @property
    def half(self) -> Any:
        """Half an ULP, relative."""
        return self.format.eps / 2

    @property
    def working(self) -> np.dtype:
        """The dtype that endpoints are computed in."""
        return np.dtype(np.longdouble) if self.rounds else self.format.container

    def flush(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Denormals may become zero; so may the smallest normal number, which a denormal may have been rounded to."""
        if not self.flushes:
            return low, high
        tiny, zero = self.format.smallest_normal, low.dtype.type(0)
        return np.where((low > 0) & (low <= tiny), zero, low), np.where((high < 0) & (high >= -tiny), zero, high)

    def round(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ends after an operation that rounds once."""
        return self.flush(*self.widen(low, high, np.abs(low), np.abs(high))) if self.rounds else self.flush(low, high)

    def widen(self, low: Any, high: Any, below: Any, above: Any) -> tuple[np.ndarray, np.ndarray]:
        """Half an ULP of the sizes ``below`` and ``above``, and overflow to infinity."""
        smallest, largest = self.format.smallest_subnormal, self.format.max
        low, high = low - below * self.half - smallest, high + above * self.half + smallest
        return np.where(low < -largest, -np.inf, low), np.where(high > largest, np.inf, high)


class Interval:
    """Arrays of lower and upper ends, and the widening that every rounding operation adds."""

    __array_ufunc__ = None  # so that a numpy scalar on the left leaves the operation to this class

    def __init__(self, low: np.ndarray, high: np.ndarray, widening: Widening) -> None:
        self.low, self.high, self.widening = low, high, widening

    def _of(self, other: Any) -> Interval:
        if isinstance(other, Interval):
            return other
        point = np.asarray(other, self.low.dtype)
        return Interval(point, point, self.widening)

    def _rounded(self, *ends: np.ndarray) -> Interval:
        low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
        undefined, infinite = np.isnan(low) | np.isnan(high), low.dtype.type(np.inf)
        low, high = np.where(undefined, -infinite, low), np.where(undefined, infinite, high)
        return Interval(*self.widening.round(low, high), self.widening)

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low, self.widening)

    def __add__(self, other: Any) -> Interval:
        other = self._of(other)
        return self._rounded(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Any) -> Interval:
        other = self._of(other)
        return self._rounded(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Any) -> Interval:
        other = self._of(other)
        ends = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return self._rounded(
            *[np.where(np.isnan(end), end.dtype.type(0), end) for end in ends]
        )  # 0 * inf: an infinite end is a bound

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Interval:
        return self._of(other) - self

    def __truediv__(self, other: Any) -> Interval:
        other = self._of(other)
        ends = [a / b for a in (self.low, self.high) for b in (other.low, other.high)]
        around_zero = (other.low <= 0) & (other.high >= 0)
        return self._rounded(*[np.where(around_zero, end.dtype.type(np.nan), end) for end in ends])

    def contains(self, values: np.ndarray) -> np.ndarray:
        """Whether each value lies within."""
        return (self.low <= values) & (values <= self.high)

    def loaded(self, format: Format) -> Interval:
        """Numbers as they are read from an array of another format, which they have: denormals may become zero."""
        widening = Widening(format, self.widening.rounds, self.widening.flushes)
        return Interval(*widening.flush(self.low, self.high), self.widening)

    def stored(self, format: Format) -> Interval:
        """Numbers as they are written into an array of another format, which rounds them once more."""
        widening = Widening(format, self.widening.rounds, self.widening.flushes)
        ends = (self.low, self.high) if widening.rounds else map(format.rounded, (self.low, self.high))
        low, high = widening.round(*ends)
        return Interval(low.astype(self.low.dtype), high.astype(self.low.dtype), self.widening)


class Namespace:
    """The functions that kernels call, on intervals; monotone ones act on the ends."""

    @staticmethod
    def abs(x: Interval) -> Interval:
        """``|x|``."""
        ends = np.abs(x.low), np.abs(x.high)
        crosses = (x.low < 0) & (x.high > 0)
        return Interval(np.where(crosses, x.low.dtype.type(0), np.minimum(*ends)), np.maximum(*ends), x.widening)

    @staticmethod
    def sqrt(x: Interval) -> Interval:
        """The square root; rounding may have pushed the lower end below zero."""
        return x._rounded(
            np.sqrt(np.maximum(x.low, x.low.dtype.type(0))), np.sqrt(np.maximum(x.high, x.low.dtype.type(0)))
        )

    @staticmethod
    def clip(x: Interval, low: float, high: float) -> Interval:
        """The nearest number in [low, high]; no rounding."""
        bounds = x.low.dtype.type(low), x.low.dtype.type(high)
        return Interval(np.clip(x.low, *bounds), np.clip(x.high, *bounds), x.widening)

    @staticmethod
    def maximum(x: Interval, y: Any) -> Interval:
        """The larger; no rounding."""
        y = x._of(y)
        return Interval(np.maximum(x.low, y.low), np.maximum(x.high, y.high), x.widening)

    @staticmethod
    def minimum(x: Interval, y: Any) -> Interval:
        """The smaller; no rounding."""
        y = x._of(y)
        return Interval(np.minimum(x.low, y.low), np.minimum(x.high, y.high), x.widening)

    @staticmethod
    def pow(x: Interval, y: Any) -> Interval:
        """A power of a non-negative number, 2 ULP off at most."""
        exponent = x._of(y)
        bases = np.maximum(x.low, x.low.dtype.type(0)), np.maximum(x.high, x.low.dtype.type(0))
        ends = [base**power for base in bases for power in (exponent.low, exponent.high)]
        low, high = (end.astype(np.longdouble) for end in (np.minimum.reduce(ends), np.maximum.reduce(ends)))
        low, high = x.widening.widen(low, high, 4 * low, 4 * high)
        return narrowed(low, high, x.widening)

    @staticmethod
    def sum(x: Interval) -> Interval:
        """The sum over all entries in any order, each addition rounding once."""
        low, high = x.low.astype(np.longdouble), x.high.astype(np.longdouble)
        slack = x.low.size * np.sum(np.maximum(np.abs(low), np.abs(high)))
        return narrowed(*x.widening.widen(np.sum(low), np.sum(high), slack, slack), x.widening)

    @staticmethod
    def mean(x: Interval) -> Interval:
        """The mean over all entries."""
        return Namespace.sum(x) / max(x.low.size, 1)


def narrowed(low: np.ndarray, high: np.ndarray, widening: Widening) -> Interval:
    """An interval with its ends in the working dtype, rounded outwards."""
    dtype = widening.working
    with np.errstate(over="ignore"):
        outwards = (
            np.nextafter(low.astype(dtype), dtype.type(-np.inf)),
            np.nextafter(high.astype(dtype), dtype.type(np.inf)),
        )
    return Interval(*widening.flush(*map(np.asarray, outwards)), widening)


HOST_OPERATIONS = 8
"""More operations than any scalar takes on the host, each a double's half ULP."""


def interval_of(value: float, widening: Widening) -> Interval:
    """Every number that a scalar may stand for, worked out on the host in doubles and rounded to a dtype.

    One that is smaller than the dtype's normal numbers is rounded to a denormal or to zero.
    """
    half = widening.half + HOST_OPERATIONS * np.longdouble(np.finfo(np.float64).eps) / 2
    middle = np.longdouble(value)
    slack = abs(middle) * half + widening.format.smallest_subnormal * (middle != 0)
    return Interval(*widening.flush(np.asarray(middle - slack), np.asarray(middle + slack)), widening)


def as_read(value: Any, widening: Widening) -> Any:
    """A scalar that has the dtype: itself, unless it is a denormal that may become zero."""
    low, high = widening.flush(np.asarray(value), np.asarray(value))
    return value if low == high else Interval(low, high, widening)


def enclose(
    function: Callable[..., Any],
    arrays: list[np.ndarray],
    scalars: dict[str, float],
    *,
    dtype: np.dtype,
    kind: str,
    flushes: bool,
    round_scalars: bool = True,
) -> tuple[Interval, ...]:
    """Enclose the results of a kernel in a dtype; kind is "rounding" or "agreement".

    With ``round_scalars=False`` (rounding only) a scalar stands for every number that rounds to it, so that the exact
    formula's result is enclosed too.
    """
    widening = Widening(FORMATS[dtype.name], kind == "rounding", flushes)
    working = widening.working
    typed: dict[str, Any] = {
        name: as_read(working.type(dtype.type(value)), widening) for name, value in scalars.items()
    }
    if not round_scalars:
        typed = {name: interval_of(value, widening) for name, value in scalars.items()}
    with np.errstate(all="ignore"):
        operands = [array.astype(working) for array in arrays]
        intervals = [Interval(*widening.flush(operand, operand), widening) for operand in operands]
        results = function(Namespace, *intervals, **typed)
    return tuple(results) if isinstance(results, tuple) else (results,)
