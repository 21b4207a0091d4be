"""Floating-point formats in binary digits, for budgets in ULP of a dtype that numpy may not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Format:
    """A format of IEEE 754's kind: ``digits`` bits of significand, exponents up to ``largest_exponent``.

    ``container`` is the numpy dtype that calculates with its numbers: the format itself, or float32 for half precision.

    >>> bfloat16 = FORMATS["bfloat16"]
    >>> float(bfloat16.eps), float(bfloat16.max) == (2 - 2**-7) * 2.0**127
    (0.0078125, True)
    """

    name: str
    digits: int
    largest_exponent: int
    container: np.dtype

    @property
    def eps(self) -> Any:
        """The distance from 1 to the next number."""
        return np.longdouble(2) ** (1 - self.digits)

    @property
    def max(self) -> Any:
        """The largest finite number."""
        return (2 - self.eps) * np.longdouble(2) ** self.largest_exponent

    @property
    def smallest_normal(self) -> Any:
        """The smallest positive number with all digits."""
        return np.longdouble(2) ** (1 - self.largest_exponent)

    @property
    def smallest_subnormal(self) -> Any:
        """The smallest positive number."""
        return self.smallest_normal * self.eps

    @property
    def half(self) -> bool:
        """Whether parameters and gradients have the format, and arithmetic and state do not."""
        return self.digits < 24

    def ulp(self, sizes: Any) -> Any:
        """The distance between neighbouring numbers at some magnitudes.

        >>> float(FORMATS["float16"].ulp(np.float64(3.0))), float(FORMATS["float16"].ulp(np.float64(0.0)))
        (0.001953125, 5.960464477539063e-08)
        """
        bounded = np.clip(np.abs(np.asarray(sizes, np.longdouble)), self.smallest_normal, self.max)
        return np.ldexp(self.eps, np.frexp(bounded)[1] - 1)

    def rounded(self, values: Any) -> Any:
        """The nearest numbers of the format, ties to even, in extended precision.

        >>> FORMATS["bfloat16"].rounded([1 + 2**-8, 1 + 3 * 2**-8, -3.4e38]).astype(float).tolist()
        [1.0, 1.015625, -inf]
        """
        values = np.asarray(values, np.longdouble)
        with np.errstate(all="ignore"):
            ulp = self.ulp(values)
            nearest = np.rint(values / ulp) * ulp
            nearest = np.where(np.abs(nearest) > self.max, np.copysign(np.longdouble(np.inf), values), nearest)
        return np.where(np.isfinite(values), nearest, values)


FORMATS = {
    "float16": Format("float16", 11, 15, np.dtype(np.float32)),
    "bfloat16": Format("bfloat16", 8, 127, np.dtype(np.float32)),
    "float32": Format("float32", 24, 127, np.dtype(np.float32)),
    "float64": Format("float64", 53, 1023, np.dtype(np.float64)),
}
HALF = tuple(name for name, format in FORMATS.items() if format.half)
