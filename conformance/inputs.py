"""Arrays that kernels find hard, the same on every machine."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from hessiod.backends.numpy import namespace as xp
from hessiod.conformance.formats import FORMATS, Format
from hessiod.core import philox

SMALL = (7, 3)
"""Strided and drawn arrays have it too: a route that compiles for each shape does so once."""
SHAPES: tuple[tuple[int, ...], ...] = ((2048,), (), (0,), (1,), SMALL)
LARGE = (33 * 2048 + 1,)
"""More entries than any route takes at a time, which is 2^16."""
NONNEGATIVE = frozenset({"exp_avg_sq", "exp_hessian_diag_sq"})
LARGEST = {"update": 1e7, "exp_avg_grad": 1e5}
"""Bounds on operands whose fourth powers are added up, the second one divided by 0.01 first."""
SEED = 20230523


def landmarks(format: Format) -> np.ndarray:
    """Zeros, denormals, the neighbourhood of 1, and magnitudes whose squares are still finite in float32."""
    denormal, normal = format.smallest_subnormal, format.smallest_normal
    positive: list[Any] = [denormal, 1000 * denormal, normal / 2, normal, 1e-30, 1e-12, 1e-7, 0.1, 1 - format.eps / 2]
    positive += [1.0, 1 + format.eps, 3.0, *(value for value in (1e4, 1e12, 1e18) if value < format.max)]
    return format.rounded([0.0, -0.0, *positive, *[-value for value in positive]]).astype(format.container)


def hard_array(
    name: str, position: int, shape: tuple[int, ...], dtype: np.dtype, format: Format | None = None
) -> np.ndarray:
    """An operand of a kernel: the first half landmarks in random order, the rest normal numbers of all magnitudes.

    With a ``format`` all of them are numbers that it holds; ``dtype`` is that of the array all the same.
    """
    values = hard_values(position, int(np.prod(shape)), dtype, format or FORMATS[dtype.name]).copy()
    if name in LARGEST:
        values = np.clip(values, -LARGEST[name], LARGEST[name]).astype(dtype)
    if name in NONNEGATIVE:
        values = np.abs(values)
    return values.reshape(shape)


@lru_cache(maxsize=256)
def hard_values(position: int, size: int, dtype: np.dtype, format: Format) -> np.ndarray:
    """The numbers of an operand, by its place among the operands."""
    stream = dict(seed=SEED, index=position, stream=philox.TARGET)
    like = np.empty(size, np.float64)
    pick = philox.uniforms(xp, like, step=0, **stream)
    marks = landmarks(format)
    values = marks[(pick * len(marks)).astype(np.int64)]
    exponent = philox.uniforms(xp, like, step=1, **stream).astype(np.float64) * 8 - 6
    normals = (philox.normals(xp, like, step=2, **stream) * 10.0**exponent).astype(dtype)
    values = np.where(np.arange(size) < (size + 1) // 2, values, normals).astype(dtype)
    return format.rounded(values).astype(dtype) if format.half else values
