"""The digits autoencoder: data, initial weights and batches, the same for every framework.

scikit-learn's 1,797 bundled digits of 8 x 8 pixels, 1,500 of them for training; 64-128-64-32-8-32-64-128-64 with tanh;
the loss is the binary cross-entropy summed over pixels and averaged over a batch of 256.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
from sklearn.datasets import load_digits

WIDTHS = (64, 128, 64, 32, 8, 32, 64, 128, 64)
BATCH = 256
TRAINING = 1500


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out pixels in [0, 1], float32; the split is drawn once and for all."""
    pixels = (load_digits().data / 16.0).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(pixels))
    return pixels[order[:TRAINING]], pixels[order[TRAINING:]]


def initial_weights(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Glorot's normal weights ``[out, in]``, and biases of zero."""
    generator = np.random.default_rng((seed, 1))
    return [
        (
            generator.normal(0.0, (2.0 / (inputs + outputs)) ** 0.5, (outputs, inputs)).astype(np.float32),
            np.zeros(outputs, np.float32),
        )
        for inputs, outputs in pairwise(WIDTHS)
    ]


def batches(seed: int) -> Iterator[np.ndarray]:
    """Batches without end: a new order of the training set in each epoch, its last incomplete batch left out."""
    generator = np.random.default_rng((seed, 2))
    pixels = digits()[0]
    while True:
        order = generator.permutation(len(pixels))
        for start in range(0, len(pixels) - BATCH + 1, BATCH):
            yield pixels[order[start : start + BATCH]]


SCHEDULES = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1.0 - share,
    "cosine": lambda share: 0.5 * (1.0 + np.cos(np.pi * share)),
}
"""What the learning rate is multiplied by after a share of the steps."""
