"""Arrays that kernels find hard, the same on every machine."""

from __future__ import annotations

import numpy as np

from hessiod.backends.numpy import namespace as xp
from hessiod.core import philox

SHAPES: tuple[tuple[int, ...], ...] = ((2048,), (), (0,), (1,), (7, 3))
NONNEGATIVE = frozenset({"exp_avg_sq", "exp_hessian_diag_sq"})
LARGEST = {"update": 1e7, "exp_avg_grad": 1e5}
"""Bounds on operands whose fourth powers are added up, the second one divided by 0.01 first."""
SEED = 20230523


def landmarks(dtype: np.dtype) -> np.ndarray:
    """Zeros, denormals, the neighbourhood of 1, and magnitudes whose squares are still finite in float32."""
    info = np.finfo(dtype)
    denormal, normal = float(info.smallest_subnormal), float(info.smallest_normal)
    positive: list[float] = [
        denormal,
        1000 * denormal,
        normal / 2,
        normal,
        1e-30,
        1e-12,
        1e-7,
        0.1,
        1 - float(info.epsneg),
        1.0,
    ]
    positive += [1 + float(info.eps), 3.0, 1e4, 1e12, 1e18]
    return np.array([0.0, -0.0, *positive, *[-value for value in positive]], dtype)


def hard_array(name: str, position: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An operand of a kernel: the first half landmarks in random order, the rest normal numbers of all magnitudes."""
    size = int(np.prod(shape))
    stream = dict(seed=SEED, index=position, stream=philox.TARGET)
    like = np.empty(size, np.float64)
    pick = philox.uniforms(xp, like, step=0, **stream)
    marks = landmarks(dtype)
    values = marks[(pick * len(marks)).astype(np.int64)]
    exponent = philox.uniforms(xp, like, step=1, **stream).astype(np.float64) * 8 - 6
    normals = (philox.normals(xp, like, step=2, **stream) * 10.0**exponent).astype(dtype)
    values = np.where(np.arange(size) < (size + 1) // 2, values, normals).astype(dtype)
    if name in LARGEST:
        values = np.clip(values, -LARGEST[name], LARGEST[name]).astype(dtype)
    if name in NONNEGATIVE:
        values = np.abs(values)
    return values.reshape(shape)
