"""What a call of a kernel should give and may give.

That depends on the kernel and its inputs and not on who is tested: it is worked out once, and kept for the next routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from hessiod.backends.contract import STORED
from hessiod.backends.numpy import run as run_numpy
from hessiod.conformance.enclosure import Interval, enclose
from hessiod.conformance.example import Example
from hessiod.conformance.formats import FORMATS, Format
from hessiod.conformance.formulas import FORMULAS
from hessiod.core.rule import Kernel


@dataclass(frozen=True)
class Expected:
    """What one result of a call should be and may be.

    ``formula`` is the published formula's in extended precision, ``numpy`` the numpy backend's. ``may`` encloses every
    faithful evaluation, ``must`` those that a route of its kind may give; the second of each, denormals flushed.
    """

    formula: np.ndarray
    numpy: np.ndarray
    may: tuple[Interval, Interval]
    must: tuple[Interval, Interval]
    ulp: np.ndarray
    is_formula: bool

    def over(self, shape: tuple[int, ...]) -> Expected:
        """The same entries over and over in another shape."""

        def resized(interval: Interval) -> Interval:
            return Interval(np.resize(interval.low, shape), np.resize(interval.high, shape), interval.widening)

        (may, may_flushed), (must, must_flushed) = self.may, self.must
        return replace(
            self,
            formula=np.resize(self.formula, shape),
            numpy=np.resize(self.numpy, shape),
            may=(resized(may), resized(may_flushed)),
            must=(resized(must), resized(must_flushed)),
            ulp=np.resize(self.ulp, shape),
        )


def stored_in(kernel: Kernel, format: Format) -> Any:
    """The kernel's function on intervals, with the arrays that users give read from and written to half precision."""

    def function(xp: Any, *arrays: Any, **scalars: Any) -> tuple[Any, ...]:
        given = zip(kernel.operands, arrays, strict=True)
        found = kernel.function(xp, *[x.loaded(format) if name in STORED else x for name, x in given], **scalars)
        results = found if isinstance(found, tuple) else (found,)
        return tuple(
            result.stored(format) if name in STORED else result
            for name, result in zip(kernel.results, results, strict=True)
        )

    return function


@lru_cache(maxsize=96)
def expected(example: Example, flushes: bool, contracts: bool) -> tuple[Expected, ...]:
    """What each result of a call should be; of the base's, if it has one."""
    if example.base is not None:
        return expected(example.base, flushes, contracts)
    kernel, format = example.subject.kernel, example.format
    arrays, scalars, dtype = list(example.arrays), example.scalars, format.container
    function = stored_in(kernel, format) if format.half else kernel.function
    with np.errstate(all="ignore"):
        wide = [array.astype(np.longdouble) for array in arrays]
        printed = FORMULAS[example.subject.name](*wide, **example.hyperparameters)
    reference = [np.asarray(result) for result in run_numpy(kernel.function, arrays, scalars)]

    def ways(kind: str, **options: bool) -> Iterable[tuple[Interval, Interval]]:
        flushed = dict.fromkeys((False, flushes))
        found = [enclose(function, arrays, scalars, dtype=dtype, kind=kind, flushes=f, **options) for f in flushed]
        return zip(found[0], found[-1], strict=True)

    may, must = ways("rounding", round_scalars=False), ways("rounding" if contracts else "agreement")
    made = []
    for name, formula, result, loose, tight in zip(kernel.results, printed, reference, may, must, strict=True):
        kept = format if name in STORED else FORMATS[dtype.name]
        exact, plain = in_range(formula, kept), kept.rounded(result).astype(dtype) if kept.half else result
        before = [np.abs(array) for operand, array in example.operands.items() if operand == name]
        ulp = kept.ulp(np.maximum.reduce([np.abs(formula), *before]))
        made.append(Expected(exact, plain, loose, tight, ulp, bool(loose[0].contains(exact).all())))
    return tuple(made)


def in_range(values: np.ndarray, format: Format) -> np.ndarray:
    """Extended-precision values with those beyond the format's range as infinities."""
    return np.where(np.abs(values) > format.max, np.copysign(np.inf, values), values)
