"""The array functions of :mod:`hessiod.backends.contract` on torch tensors."""

import numpy as np
import torch
from torch import (
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
    mean,
    reshape,
    sin,
    sum,
)
from torch import bitwise_left_shift as shift_left
from torch import bitwise_right_shift as shift_right
from torch import clamp as clip

from hessiod.backends_torch.shards import is_split, settled

__all__ = [
    "abs",
    "amax",
    "arange",
    "astype",
    "bitwise_and",
    "bitwise_xor",
    "clip",
    "concat",
    "concat_last",
    "cos",
    "cumsum",
    "eigh",
    "exp",
    "eye",
    "float32",
    "float64",
    "frobenius",
    "int64",
    "log",
    "matmul",
    "maximum",
    "mean",
    "minimum",
    "pow",
    "reshape",
    "shift_left",
    "shift_right",
    "sin",
    "spd_inverse",
    "sqrt",
    "stack",
    "sum",
    "sum_last",
    "sum_rows",
    "trace",
    "transpose",
]


def on_shards(function, x, *rest):
    """A function of the local shard alone; a sum over shards is taken before."""
    x = settled(x)
    local = function(x.to_local(), *rest)
    return type(x).from_local(local, x.device_mesh, x.placements, shape=x.shape, stride=x.stride())


def sqrt(x):
    if is_split(x):
        return on_shards(sqrt, x)
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        return torch.as_tensor(np.sqrt(x.detach().numpy()))  # torch.sqrt calls MKL: a fifth of float32 is an ULP off
    return torch.sqrt(x)


def pow(x, y):
    """In float64, with the exponent that the array's dtype holds: torch rounds it or not, by the array's length."""
    if is_split(x):
        return on_shards(pow, x, y)
    if x.dtype == float64:
        return torch.pow(x, y)
    return torch.pow(x.to(float64), torch.as_tensor(y, dtype=x.dtype, device=x.device).to(float64)).to(x.dtype)


def minimum(x, y):
    return torch.minimum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, max=y)


def maximum(x, y):
    return torch.maximum(x, y) if isinstance(y, torch.Tensor) else torch.clamp(x, min=y)


def sum_last(x):
    return torch.sum(x, dim=-1, keepdim=True)


def amax(x):
    return torch.amax(x, dim=-1, keepdim=True)


def cumsum(x):
    return torch.cumsum(x, dim=-1)


def arange(n, like):
    return torch.arange(n, dtype=torch.int64, device=like.device)


def stack(arrays):
    return torch.stack(tuple(arrays), dim=-1)


def concat(arrays):
    return torch.cat(tuple(arrays))


def astype(x, dtype):
    return x.to(dtype)


def transpose(x):
    return x.mT


def concat_last(arrays):
    return torch.cat(tuple(arrays), dim=-1)


def eye(n, like):
    return torch.eye(n, dtype=like.dtype, device=like.device)


def trace(x):
    return torch.diagonal(x, dim1=-2, dim2=-1).sum(-1)[..., None, None]


def frobenius(x):
    return torch.linalg.matrix_norm(x, keepdim=True)


def sum_rows(x):
    return torch.sum(x, dim=-2, keepdim=True)


def spd_inverse(x):
    factor, failed = torch.linalg.cholesky_ex(x)
    if x.is_cpu and not failed.any():
        found = torch.cholesky_inverse(factor)
    else:  # without asking a device whether it failed; cholesky_inverse raises for a factor that is unfinished
        done = failed[..., None, None] == 0
        factor = torch.where(done, factor, eye(x.shape[-1], x))
        found = torch.where(done, torch.cholesky_inverse(factor), torch.nan)
    return by_rows(found)


def by_rows(x):
    # A run that goes on from a file has its inverses by rows, and products of the same bits need the same layout.
    # LAPACK writes by columns; of a symmetric matrix that is the transpose, and nothing has to be copied.
    return x.mT if x.mT.is_contiguous() else x.contiguous()


def eigh(x):
    return tuple(torch.linalg.eigh(x))
