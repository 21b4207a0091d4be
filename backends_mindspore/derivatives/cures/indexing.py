"""Gathers and selections, whose second derivative MindSpore fails to build."""

from __future__ import annotations

import mindspore as ms
from mindspore import ops
from mindspore.ops.auto_generate import ArgMaxWithValue, ArgMinWithValue

from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator, own


def gathered(x, axis, index):
    """``x`` at ``index`` along an axis, as a product with one-hot rows."""
    axis = axis % x.ndim
    for place in range(x.ndim):
        if place != axis and x.shape[place] != index.shape[place]:
            x = x.narrow(place, 0, index.shape[place])
    numbers = ops.arange(0, x.shape[axis], 1, dtype=ms.int64)
    chosen = ops.expand_dims(ops.cast(index, ms.int64) % x.shape[axis], -1) == numbers
    rows = ops.expand_dims(ops.movedim(x, axis, -1), axis)
    return (rows * ops.cast(chosen, x.dtype)).sum(-1)


class CuredGatherD(CuredOperator):
    """``GatherD()(x, dim, index)``."""

    def construct(self, x, dim, index):
        """``x`` at ``index`` along an axis."""
        return gathered(x, dim, index)


class CuredArgMaxWithValue(CuredOperator):
    """``ArgMaxWithValue(axis, keep_dims)(x)``."""

    arguments = ("axis", "keep_dims")

    def __init__(self, axis=0, keep_dims=False):
        super().__init__()
        self.axis, self.keep_dims = axis, keep_dims
        self.find = own(ArgMaxWithValue(axis, True))

    def construct(self, x):
        """The places of the first largest entries, and these."""
        return found(x, self.find, self.axis, self.keep_dims)


class CuredArgMinWithValue(CuredOperator):
    """``ArgMinWithValue(axis, keep_dims)(x)``."""

    arguments = ("axis", "keep_dims")

    def __init__(self, axis=0, keep_dims=False):
        super().__init__()
        self.axis, self.keep_dims = axis, keep_dims
        self.find = own(ArgMinWithValue(axis, True))

    def construct(self, x):
        """The places of the first smallest entries, and these."""
        return found(x, self.find, self.axis, self.keep_dims)


def found(x, find, axis, keep_dims):
    """Places by an operator that keeps dimensions, and the values there."""
    index, _ = find(ops.stop_gradient(x))
    index = ops.stop_gradient(index)
    values = gathered(x, axis, index)
    if keep_dims:
        return index, values
    return index.squeeze(axis), values.squeeze(axis)


class CuredMaxDim(CuredOperator):
    """``MaxDim()(x, dim, keepdim)``."""

    def construct(self, x, dim, keepdim=False):
        """The largest entries, and their places."""
        index, values = CuredArgMaxWithValue(dim, keepdim)(x)
        return values, index


class CuredMinDim(CuredOperator):
    """``MinDim()(x, dim, keepdim)``."""

    def construct(self, x, dim, keepdim=False):
        """The smallest entries, and their places."""
        index, values = CuredArgMinWithValue(dim, keepdim)(x)
        return values, index


class CuredMax(CuredOperator):
    """``Max()(x)``."""

    def construct(self, x):
        """The largest entry."""
        return ops.amax(x)


class CuredMin(CuredOperator):
    """``Min()(x)``."""

    def construct(self, x):
        """The smallest entry."""
        return ops.amin(x)


class CuredEmbedding(CuredOperator):
    """``Embedding()(index, weight, ...)``, whose gradient has no CPU kernel."""

    def construct(self, index, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False):
        """Rows of the weight; the padding's row gets no gradient."""
        rows = ops.gather(weight, index, 0)
        if padding_idx is None:
            return rows
        padding = ops.expand_dims(index == padding_idx % weight.shape[0], -1)
        return ops.where(padding, ops.stop_gradient(rows), rows)


def roll(x, shifts, dims=None):
    """The entries moved along each axis, and around; over all of them in one row without ``dims``."""
    shifts = (shifts,) if isinstance(shifts, int) else shifts
    if dims is None:
        return rolled(x.reshape(-1), shifts[0], 0).reshape(x.shape)
    dims = (dims,) if isinstance(dims, int) else dims
    for shift, axis in zip(shifts, dims):  # noqa: B905 - strict= cannot be traced
        x = rolled(x, shift, axis)
    return x


class CuredRoll(CuredOperator):
    """``Roll(shifts, dims)(x)``, which has no CPU kernel."""

    arguments = ("shifts", "dims")

    def __init__(self, shifts, dims=None):
        super().__init__()
        self.shifts, self.dims = shifts, dims

    def construct(self, x):
        """The entries moved along each axis, and around."""
        return roll(x, self.shifts, self.dims)


def rolled(x, shift, axis):
    """The entries moved along an axis, and around."""
    size = x.shape[axis]
    numbers = (ops.arange(0, size, 1, dtype=ms.int64) - shift) % size
    return ops.gather(x, numbers, axis)


class CuredTransposeView(CuredOperator):
    """``TransposeView()(x, perm)``."""

    def construct(self, x, perm):
        """The axes in another order."""
        return ops.transpose(x, perm)


OPERATORS = {
    "GatherD": CuredGatherD,
    "ArgMaxWithValue": CuredArgMaxWithValue,
    "ArgMinWithValue": CuredArgMinWithValue,
    "Max": CuredMax,
    "Min": CuredMin,
    "MaxDim": CuredMaxDim,
    "MinDim": CuredMinDim,
    "Embedding": CuredEmbedding,
    "Roll": CuredRoll,
    "TransposeView": CuredTransposeView,
}
