"""Initial weights: the same bits for every framework."""

from __future__ import annotations

import numpy as np

from hessiod.backends.numpy import namespace as xp
from hessiod.backends.training.model import Model
from hessiod.core import philox


def initial_weights(model: Model, seed: int) -> dict[str, np.ndarray]:
    """Float32 weights by parameter name, normal with the model's means and deviations.

    Normal numbers are worked out in float64 and rounded once.

    >>> from hessiod.backends.gpt.config import GPTConfig
    >>> weights = initial_weights(GPTConfig(), seed=0)
    >>> sum(array.size for array in weights.values()), weights["head.weight"].dtype
    (277440, dtype('float32'))
    """
    weights = {}
    for index, (name, shape) in enumerate(model.shapes.items()):
        mean, deviation = model.start(name)
        if deviation == 0:
            weights[name] = np.full(shape, mean, np.float32)
            continue
        like = np.empty(shape, np.float64)
        normals = philox.normals(xp, like, seed=seed, step=0, index=index, stream=philox.WEIGHT)
        weights[name] = (mean + deviation * normals).astype(np.float32)
    return weights
