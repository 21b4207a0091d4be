"""What level 0 calls each function of the namespace with: fixed arrays, and ones that hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from hessiod.conformance import draws
from hessiod.conformance.formats import FORMATS
from hessiod.conformance.inputs import hard_array

SAMPLING = 2.0**11
"""ULP that a function of the sampling may be off: 2^-12 relative in float32."""
LARGEST = 1e18
"""Of drawn entries: their squares stay finite in float32."""


@dataclass(frozen=True)
class Fixed:
    """Arguments that are the same in every run; ``place`` tells those of one call apart."""

    dtype: np.dtype
    shape: tuple[int, ...] = (64, 8)

    def words(self, place: int = 0) -> np.ndarray:
        """32-bit words in int64, the extremes among them."""
        found = np.random.default_rng(2023 + place).integers(2**32, size=self.shape)
        found[0, :4] = 0, 1, 2**31, 2**32 - 1
        return found

    def normal(self, place: int = 0) -> np.ndarray:
        """Zeros, huge and ordinary numbers; no denormals, which some frameworks flush."""
        return flushed(hard_array("", place, self.shape, self.dtype))

    def positive(self) -> np.ndarray:
        """Positive numbers of all magnitudes, and the neighbourhood of 1."""
        values = (10.0 ** np.random.default_rng(14342).uniform(-30, 30, self.shape)).astype(self.dtype)
        values[:4] = (1 + np.arange(-16, 16).reshape(4, 8) * float(np.finfo(self.dtype).eps)).astype(self.dtype)
        return values

    def within(self, bound: float) -> np.ndarray:
        """Numbers from -bound to bound."""
        return np.random.default_rng(305).uniform(-bound, bound, self.shape).astype(self.dtype)

    def matrices(self) -> np.ndarray:
        """Square matrices of numbers from -1 to 1."""
        return self.within(1.0).reshape(8, 8, 8)

    def number(self, fixed: float, low: float, high: float) -> float:
        """A number that float32 holds, as kernels' scalars are rounded."""
        return fixed

    def count(self, fixed: int, least: int, most: int) -> int:
        """A whole number."""
        return fixed


@dataclass(frozen=True)
class Drawn:
    """Other arguments with every seed; ``draw`` gives what a strategy makes."""

    dtype: np.dtype
    draw: Callable[[Any], Any]
    shape: tuple[int, ...] = (2, 8)

    def words(self, place: int = 0) -> np.ndarray:
        """32-bit words in int64."""
        return draws.array(self.draw, draws.integers(0, 2**32 - 1), self.shape).astype(np.int64)

    def normal(self, place: int = 0) -> np.ndarray:
        """Zeros, huge and ordinary numbers; no denormals."""
        return flushed(self.draw(draws.numbers(self.shape, FORMATS[self.dtype.name], LARGEST, place=place)))

    def positive(self) -> np.ndarray:
        """Positive numbers of all magnitudes."""
        return draws.array(self.draw, draws.positive(1e-30, 1e30), self.shape).astype(self.dtype)

    def within(self, bound: float) -> np.ndarray:
        """Numbers from -bound to bound."""
        return draws.array(self.draw, draws.between(-bound, bound), self.shape).astype(self.dtype)

    def matrices(self) -> np.ndarray:
        """Square matrices of numbers from -1 to 1."""
        return self.within(1.0).reshape(1, 4, 4)

    def number(self, fixed: float, low: float, high: float) -> float:
        """A number between two that float32 holds."""
        return self.draw(draws.between(low, high))

    def count(self, fixed: int, least: int, most: int) -> int:
        """A whole number between two."""
        return self.draw(draws.integers(least, most))


def flushed(values: np.ndarray) -> np.ndarray:
    """Zeros in the place of denormals."""
    return np.where(np.abs(values) < np.finfo(values.dtype).smallest_normal, values.dtype.type(0), values)


Shape = tuple[int, ...]
DOUBLE = ("float64",)


@dataclass(frozen=True)
class Call:
    """Arguments for a function, and the ULP that its results may be off.

    ``terms`` says how many numbers a result adds up, given the first argument's shape; ``dtypes`` in which dtypes core/
    calls it (empty: in all that the backend has); ``either_zero`` that of 0 and -0 either may be the larger, as IEEE
    754 leaves open and libraries differ in. An argument that is a string names an entry of the namespace.
    """

    arguments: Callable[[Fixed | Drawn], Sequence[Any]]
    budget: float = 0.0
    terms: Callable[[Shape], int] | None = None
    dtypes: tuple[str, ...] = ()
    either_zero: bool = False


def last(shape: Shape) -> int:
    """The length of the last axis."""
    return shape[-1]


FLOATS: dict[str, Call] = {
    "abs": Call(lambda given: (given.normal(),)),
    "sqrt": Call(lambda given: (np.abs(given.normal()),)),
    "pow": Call(lambda given: (given.positive() ** given.dtype.type(0.5), given.number(0.75, 0.25, 1.0)), budget=2.0),
    "exp": Call(lambda given: (given.within(80.0),), budget=SAMPLING),
    "log": Call(lambda given: (given.positive(),), budget=SAMPLING, dtypes=DOUBLE),
    "cos": Call(lambda given: (given.within(6.25),), budget=SAMPLING, dtypes=DOUBLE),
    "sin": Call(lambda given: (given.within(6.25),), budget=SAMPLING, dtypes=DOUBLE),
    "clip": Call(
        lambda given: (given.normal(), given.number(-1.0, -4.0, -0.25), given.number(0.25, -0.25, 4.0)),
        either_zero=True,
    ),
    "minimum": Call(lambda given: (given.normal(), given.normal(1)), either_zero=True),
    "maximum": Call(lambda given: (given.normal(), given.normal(1)), either_zero=True),
    "sum": Call(lambda given: (given.within(1.0),), terms=prod),
    "mean": Call(lambda given: (given.within(1.0),), terms=prod),
    "sum_last": Call(lambda given: (given.within(1.0),), terms=last),
    "amax": Call(lambda given: (given.normal(),)),
    "cumsum": Call(lambda given: (given.within(1.0),), terms=last),
    "arange": Call(lambda given: (given.count(7, 1, 40), given.normal())),
    "stack": Call(lambda given: ([given.normal(), given.normal(1)],)),
    "concat": Call(lambda given: ([given.normal()[0], given.normal(1)[1], given.normal(2)[0]],)),
    "reshape": Call(lambda given: (given.normal(), given.shape[::-1])),
    "astype": Call(lambda given: (given.normal() > 0, given.dtype.name)),
}
MATRICES: dict[str, Call] = {
    "matmul": Call(lambda given: (given.matrices(), given.matrices()[:, ::-1].copy()), terms=last),
    "transpose": Call(lambda given: (given.normal(),)),
    "concat_last": Call(lambda given: ([given.normal(), given.normal(1)],)),
    "eye": Call(lambda given: (given.count(5, 1, 12), given.normal())),
    "trace": Call(lambda given: (given.matrices(),), terms=last),
    "frobenius": Call(lambda given: (given.matrices(),), terms=lambda shape: prod(shape[-2:])),
    "sum_rows": Call(lambda given: (given.within(1.0),), terms=lambda shape: shape[-2]),
}
"""``spd_inverse`` and ``eigh`` have no budget of this form; the Kronecker checks of level 3 call them."""
INTEGERS: dict[str, Call] = {
    "bitwise_and": Call(lambda given: (given.words(), given.count(0xFFFF0F0F, 0, 2**32 - 1))),
    "bitwise_xor": Call(lambda given: (given.words(), given.words(1))),
    "shift_left": Call(lambda given: (given.words(), given.count(16, 0, 31))),
    "shift_right": Call(lambda given: (given.words()[..., None], np.arange(32))),
}
