"""A convnet on the digits: data, initial weights, batches and settings, the same for every framework.

scikit-learn's 1,797 bundled digits of 8 x 8 pixels, 1,500 of them for training; a convolution, a depthwise and a
pointwise one, BatchNorm after the first and the last, a classifier.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import prod
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

BATCH = 128
TRAINING = 1500
SEED = 0

KRONECKER: dict[str, Any] = {"lr": 0.1, "damping": 0.03, "kl_clip": 1e-2}
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "K-FAC": ("KFAC", KRONECKER),
    "SP-NGD": ("SPNGD", KRONECKER),
    "THOR": ("THOR", KRONECKER),
    "AdamW": ("AdamW", {"lr": 3e-3}),
}
"""Class and settings by name: by hand, the same for the three methods; nothing was searched."""

SHAPES: list[tuple[tuple[int, ...], bool]] = [
    ((16, 1, 3, 3), True),
    ((16, 1, 3, 3), False),
    ((32, 16, 1, 1), True),
    ((10, 32 * 16), True),
]
"""Weights, and whether there is a bias: convolution, depthwise, pointwise, classifier."""


@cache
def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images ``[N, 1, 8, 8]`` in [0, 1] with their digits, int32: those for training and those to judge by."""
    data = load_digits()
    images, labels = (data.images[:, None] / 16.0).astype(np.float32), data.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    first, rest = order[:TRAINING], order[TRAINING:]
    return (images[first], labels[first]), (images[rest], labels[rest])


def initial_weights() -> list[list[np.ndarray]]:
    """Weight and, where there is one, bias of each layer: uniform within ``1 / sqrt(inputs)``, as torch draws them."""
    generator = np.random.default_rng((SEED, 1))
    found = []
    for shape, bias in SHAPES:
        bound = prod(shape[1:]) ** -0.5
        parts = [shape, shape[:1]] if bias else [shape]
        found.append([generator.uniform(-bound, bound, part).astype(np.float32) for part in parts])
    return found


def batches(steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of the training set in a new order each epoch, its last incomplete batch left out."""
    generator, (images, labels) = np.random.default_rng((SEED, 2)), digits()[0]
    for step in range(steps):
        place = step % (TRAINING // BATCH)
        if place == 0:
            order = generator.permutation(TRAINING)
        rows = order[place * BATCH : (place + 1) * BATCH]
        yield images[rows], labels[rows]


def rates(lr: float, steps: int) -> list[float]:
    """A learning rate that falls to a hundredth, in a straight line."""
    return [lr * (1.0 - 0.99 * step / steps) for step in range(steps)]
