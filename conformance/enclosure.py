"""Which results may a correct evaluation of a kernel have? Interval arithmetic over the kernel itself answers.

An :class:`Interval` runs through a kernel in the place of an array. After every operation that rounds, it is widened by
what an implementation may do there, so the result encloses every faithful evaluation and nothing else. Budgets are
therefore counted from the kernel's own operations, element by element, cancellation included; none is tuned by hand.

Three kinds of widening:

``rounding``   half an ULP each way: any rounding to nearest, any fusing of a product and a sum. Endpoints are
               computed in extended precision.
``flushing``   none, but a denormal number may be replaced by zero. Endpoints are computed in the kernel's own dtype:
               without denormals the enclosure is one number, and the result must agree bit for bit.
``exact``      none at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Widening = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def exact(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No widening."""
    return low, high


def flushing(dtype: np.dtype) -> Widening:
    """Denormal numbers may become zero; so may the smallest normal one, which a denormal may have been rounded to."""
    tiny = np.finfo(dtype).smallest_normal

    def widen(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        zero = low.dtype.type(0)
        return np.where((low > 0) & (low <= tiny), zero, low), np.where((high < 0) & (high >= -tiny), zero, high)

    return widen


def rounding(dtype: np.dtype, flushes: bool) -> Widening:
    """Half an ULP each way, overflow to infinity, and denormals to zero where the route does that."""
    info = np.finfo(dtype)
    half = np.longdouble(info.eps) / 2
    smallest = np.longdouble(info.smallest_normal if flushes else info.smallest_subnormal)

    def widen(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = low - np.abs(low) * half - smallest
        high = high + np.abs(high) * half + smallest
        return np.where(low < -info.max, -np.inf, low), np.where(high > info.max, np.inf, high)

    return widen


class Interval:
    """Arrays of lower and upper ends, and the widening that every rounding operation adds."""

    __array_ufunc__ = None  # so that a numpy scalar on the left leaves the operation to this class

    def __init__(self, low: np.ndarray, high: np.ndarray, widen: Widening) -> None:
        self.low, self.high, self.widen = low, high, widen

    def _of(self, other: Any) -> Interval:
        return other if isinstance(other, Interval) else Interval(np.asarray(other), np.asarray(other), self.widen)

    def _rounded(self, *ends: np.ndarray) -> Interval:
        low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
        undefined, infinite = np.isnan(low) | np.isnan(high), low.dtype.type(np.inf)
        return Interval(
            *self.widen(np.where(undefined, -infinite, low), np.where(undefined, infinite, high)), self.widen
        )

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


class Namespace:
    """The functions that kernels call, on intervals; monotone ones act on the ends."""

    @staticmethod
    def abs(x: Interval) -> Interval:
        """``|x|``."""
        ends = np.abs(x.low), np.abs(x.high)
        crosses = (x.low < 0) & (x.high > 0)
        return Interval(np.where(crosses, x.low.dtype.type(0), np.minimum(*ends)), np.maximum(*ends), x.widen)

    @staticmethod
    def sqrt(x: Interval) -> Interval:
        """The square root; rounding may have pushed the lower end below zero."""
        return x._rounded(np.sqrt(np.maximum(x.low, 0)), np.sqrt(np.maximum(x.high, 0)))

    @staticmethod
    def clip(x: Interval, low: float, high: float) -> Interval:
        """The nearest number in [low, high]; no rounding."""
        bounds = x.low.dtype.type(low), x.low.dtype.type(high)
        return Interval(np.clip(x.low, *bounds), np.clip(x.high, *bounds), x.widen)

    @staticmethod
    def maximum(x: Interval, y: Any) -> Interval:
        """The larger; no rounding."""
        y = x._of(y)
        return Interval(np.maximum(x.low, y.low), np.maximum(x.high, y.high), x.widen)

    @staticmethod
    def minimum(x: Interval, y: Any) -> Interval:
        """The smaller; no rounding."""
        y = x._of(y)
        return Interval(np.minimum(x.low, y.low), np.minimum(x.high, y.high), x.widen)


HOST_OPERATIONS = 8
"""More operations than any scalar takes on the host, each a double's half ULP."""


def interval_of(value: float, dtype: np.dtype, widen: Widening) -> Interval:
    """Every number that a scalar may stand for, worked out on the host in doubles and rounded to a dtype."""
    half = np.longdouble(np.finfo(dtype).eps) / 2 + HOST_OPERATIONS * np.longdouble(np.finfo(np.float64).eps) / 2
    middle, slack = np.longdouble(value), abs(np.longdouble(value)) * half
    return Interval(np.asarray(middle - slack), np.asarray(middle + slack), widen)


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
    """Enclose the results of a kernel in a dtype.

    kind "rounding" encloses evaluations that round in any way, "agreement" those that perform every operation with one
    rounding to nearest. With ``round_scalars=False`` (rounding only) a scalar stands for every number that rounds to
    it, so that the exact formula's result is enclosed too.
    """
    if kind == "rounding":
        widen, working = rounding(dtype, flushes), np.dtype(np.longdouble)
    else:
        widen, working = (flushing(dtype) if flushes else exact), dtype
    typed: dict[str, Any] = {name: working.type(dtype.type(value)) for name, value in scalars.items()}
    if not round_scalars:
        typed = {name: interval_of(value, dtype, widen) for name, value in scalars.items()}
    operands = [array.astype(working) for array in arrays]
    flushed = flushing(dtype) if flushes else exact
    with np.errstate(all="ignore"):
        intervals = [Interval(*flushed(operand, operand), widen) for operand in operands]
        results = function(Namespace, *intervals, **typed)
    return tuple(results) if isinstance(results, tuple) else (results,)
