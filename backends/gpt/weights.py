"""Initial weights: the same bits for every framework."""

from __future__ import annotations

import numpy as np

from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends.numpy import namespace as xp
from hessiod.core import philox


def initial_weights(config: GPTConfig, seed: int) -> dict[str, np.ndarray]:
    """Float32 weights by parameter name: N(0, 0.02^2) for matrices, 1 and 0 for the norms' weights and biases.

    The two projections that write into the residual stream are divided by ``sqrt(2 * layers)``, as in GPT-2. Normal
    numbers are worked out in float64 and rounded once.

    >>> weights = initial_weights(GPTConfig(), seed=0)
    >>> sum(array.size for array in weights.values()), weights["head.weight"].dtype
    (277440, dtype('float32'))
    """
    weights = {}
    for index, (name, shape) in enumerate(config.shapes.items()):
        if "norm" in name:
            weights[name] = np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32)
            continue
        scale = 0.02
        if name.endswith(("merge.weight", "contract.weight")):
            scale /= (2 * config.layers) ** 0.5
        like = np.empty(shape, np.float64)
        normals = philox.normals(xp, like, seed=seed, step=0, index=index, stream=philox.WEIGHT)
        weights[name] = (scale * normals).astype(np.float32)
    return weights
