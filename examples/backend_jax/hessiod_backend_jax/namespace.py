"""The array functions of hessiod.backends.contract on jax arrays."""

import jax.numpy as jnp
from jax.numpy import (
    abs,
    bitwise_and,
    bitwise_xor,
    cos,
    exp,
    float32,
    float64,
    int64,
    log,
    matmul,
    maximum,
    minimum,
    reshape,
    sin,
    sqrt,
    sum,
)
from jax.numpy import (
    eye as _eye,
)
from jax.numpy import left_shift as shift_left
from jax.numpy import power as pow
from jax.numpy import right_shift as shift_right
from jax.numpy.linalg import eigh


def clip(x, low, high):
    return jnp.clip(x, low, high)


def mean(x):
    return jnp.sum(x) / max(x.size, 1)


def sum_last(x):
    return jnp.sum(x, axis=-1, keepdims=True)


def sum_rows(x):
    return jnp.sum(x, axis=-2, keepdims=True)


def amax(x):
    return jnp.max(x, axis=-1, keepdims=True)


def cumsum(x):
    return jnp.cumsum(x, axis=-1)


def arange(n, like):
    return jnp.arange(n, dtype=jnp.int64)


def stack(arrays):
    return jnp.stack(tuple(arrays), axis=-1)


def concat(arrays):
    return jnp.concatenate(tuple(arrays))


def concat_last(arrays):
    return jnp.concatenate(tuple(arrays), axis=-1)


def astype(x, dtype):
    return x.astype(dtype)


def transpose(x):
    return jnp.swapaxes(x, -1, -2)


def eye(n, like):
    return _eye(n, dtype=like.dtype)


def trace(x):
    return jnp.trace(x, axis1=-2, axis2=-1)[..., None, None]


def frobenius(x):
    return jnp.sqrt(jnp.sum(x * x, axis=(-2, -1), keepdims=True))


def spd_inverse(x):
    half = jnp.linalg.inv(jnp.linalg.cholesky(x))  # NaN where x is not positive definite
    return jnp.matmul(jnp.swapaxes(half, -1, -2), half)
