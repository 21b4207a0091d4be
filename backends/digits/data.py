"""Images of digits with their labels, cut into batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hessiod.backends.numpy import namespace as xp
from hessiod.core import philox
from hessiod.core.errors import InvalidArgument

LEVELS = "0123456789ABCDEFG"
"""The 17 levels of grey, one character each."""


@dataclass(frozen=True)
class Digits:
    """Float32 images ``[n, 64]`` with entries in [-1, 1], row by row, and int32 labels ``[n]``."""

    images: np.ndarray
    labels: np.ndarray

    def some(self, rows: np.ndarray) -> Digits:
        """The images of some rows, with their labels."""
        return Digits(self.images[rows], self.labels[rows])

    def batch(self, step: int, *, seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of a step, drawn with replacement: a pure function of seed and step."""
        bits = philox.words(xp, np.arange(rows), seed=seed, step=step, index=0, sample=0, stream=philox.BATCH)[:, 0]
        chosen = self.some(bits % len(self.labels))
        return chosen.images, chosen.labels


def from_levels(levels: np.ndarray, labels: np.ndarray) -> Digits:
    """From grey levels 0 to 16, ``[n, 64]``, as scikit-learn's ``load_digits`` has them."""
    return Digits((np.asarray(levels) / 8 - 1).astype(np.float32), np.asarray(labels).astype(np.int32))


def as_text(levels: np.ndarray, labels: np.ndarray) -> str:
    """A line for each image: the label, a space, and a character for each pixel's level."""
    rows = ("".join(LEVELS[int(level)] for level in row) for row in levels)
    return "".join(f"{label} {row}\n" for label, row in zip(labels, rows, strict=True))


def from_text(text: str) -> Digits:
    """What :func:`as_text` wrote; lines that begin with ``#`` are comments.

    >>> digits = from_text("7 " + "0G" * 32)
    >>> digits.labels, digits.images.shape, digits.images[0, :2]
    (array([7], dtype=int32), (1, 64), array([-1.,  1.], dtype=float32))
    """
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    for number, (label, row) in enumerate(lines):
        if len(row) != 64 or not set(row) <= set(LEVELS) or label not in tuple("0123456789"):
            raise InvalidArgument(f"digits: image {number} is {label!r} {row!r}, expected a digit and 64 of {LEVELS}")
    levels = np.array([[LEVELS.index(level) for level in row] for _, row in lines])
    return from_levels(levels, np.array([int(label) for label, _ in lines]))
