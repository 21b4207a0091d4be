"""A case: an operator or a layer at a point, and how its inputs are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from hessiod.backends.numpy import namespace as xp
from hessiod.core.philox import normals

Draw = Callable[[int, int], np.ndarray]
"""From the case's seed and the input's place to the array."""


@dataclass(frozen=True)
class Case:
    """What is differentiated: ``sum(c * (y + y * y / 2))`` for the operator's output ``y`` and fixed numbers ``c``.

    The square makes the second derivative of a linear operator something other than zero, and sends the gradient that
    passes the operator through a function of its output, which is where tapes are lost.

    ``inputs`` are what derivatives are taken of, by name, ``constants`` what the operator is given besides (labels,
    indices, masks). ``smooth`` says that the operator has a second derivative everywhere; a case that has kinks is
    measured away from them.
    """

    name: str
    family: str
    inputs: dict[str, Draw]
    constants: dict[str, np.ndarray]
    smooth: bool

    def draw(self) -> dict[str, np.ndarray]:
        """The point: float64 arrays whose values are float32 numbers, so that both precisions start at one place."""
        return {name: draw(self.seed, place) for place, (name, draw) in enumerate(self.inputs.items())}

    def draw_like(self, arrays: dict[str, np.ndarray], sample: int) -> dict[str, np.ndarray]:
        """Standard normal numbers shaped like some arrays: the direction (sample 1), the output's weights (2)."""
        return {
            name: numbers(self.seed, place, array.shape, sample) for place, (name, array) in enumerate(arrays.items())
        }

    @property
    def seed(self) -> int:
        """Of the name alone, so that a new case does not change the others."""
        return crc32(self.name.encode())


def numbers(seed: int, place: int, shape: tuple[int, ...], sample: int = 0) -> np.ndarray:
    """Standard normal numbers rounded to float32, as float64."""
    drawn = normals(xp, np.zeros(shape), seed=seed, step=0, index=place, sample=sample)
    return drawn.astype(np.float32).astype(np.float64)


def exactly(array: np.ndarray) -> np.ndarray:
    """Rounded to float32."""
    return np.asarray(array).astype(np.float32).astype(np.float64)


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Draw:
    """``shift + scale * N(0, 1)``."""
    return lambda seed, place: exactly(shift + scale * numbers(seed, place, shape))


def positive(*shape: int, least: float = 0.3) -> Draw:
    """``least + |N(0, 1)|``."""
    return lambda seed, place: exactly(least + np.abs(numbers(seed, place, shape)))


def inside(*shape: int, low: float = -0.9, high: float = 0.9) -> Draw:
    """Between two numbers."""

    def draw(seed: int, place: int) -> np.ndarray:
        middle, half = (high + low) / 2, (high - low) / 2
        return exactly(middle + half * np.tanh(numbers(seed, place, shape)))

    return draw


def away(*shape: int, kinks: tuple[float, ...] = (0.0,), by: float = 0.1, scale: float = 1.0) -> Draw:
    """Normal numbers pushed at least ``by`` away from kinks."""

    def draw(seed: int, place: int) -> np.ndarray:
        x = scale * numbers(seed, place, shape)
        for kink in kinks:
            near = np.abs(x - kink) < by
            x = np.where(near, kink + by * (1 + np.abs(x - kink)) * np.where(x >= kink, 1, -1), x)
        return exactly(x)

    return draw


def spread(*shape: int, gap: float = 0.15) -> Draw:
    """Distinct numbers in random order, at least about ``gap`` apart: no ties for maxima and sorting."""

    def draw(seed: int, place: int) -> np.ndarray:
        x = numbers(seed, place, shape)
        ranks = np.argsort(np.argsort(x, axis=None)).reshape(shape)
        return exactly(gap * (ranks - x.size / 2 + 0.3) + 0.01 * x)

    return draw


def definite(size: int, *batch: int) -> Draw:
    """Symmetric positive definite matrices ``A A' / n + I``."""

    def draw(seed: int, place: int) -> np.ndarray:
        a = numbers(seed, place, (*batch, size, size))
        return exactly(a @ np.swapaxes(a, -1, -2) / size + np.eye(size))

    return draw


def lower(size: int) -> Draw:
    """Lower triangular matrices with a diagonal well away from zero."""

    def draw(seed: int, place: int) -> np.ndarray:
        a = numbers(seed, place, (size, size))
        return exactly(np.tril(a, -1) / 2 + np.diag(1 + np.abs(np.diag(a))))

    return draw


def probabilities(rows: int, classes: int) -> Draw:
    """Rows that sum to about one."""

    def draw(seed: int, place: int) -> np.ndarray:
        x = np.exp(numbers(seed, place, (rows, classes)))
        return exactly(x / x.sum(-1, keepdims=True))

    return draw


Entry = tuple[dict[str, Draw], dict[str, np.ndarray], bool]


def case(*, kinks: bool = False, **inputs: Draw | np.ndarray) -> Entry:
    """An entry of a family: draws are inputs, arrays are constants; ``kinks`` says it is not smooth."""
    draws = {name: value for name, value in inputs.items() if callable(value)}
    constants = {name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}
    return draws, constants, not kinks


def family(title: str, **entries: Entry) -> list[Case]:
    """The cases of a family by name."""
    return [Case(name, title, *entry) for name, entry in entries.items()]
