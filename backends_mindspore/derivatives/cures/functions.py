"""Functions that choose or make their operators where the tracer's question does not come by."""

from __future__ import annotations

from mindspore import mint, ops

from hessiod.backends_mindspore.derivatives.cures.einsum import CuredEinsum
from hessiod.backends_mindspore.derivatives.cures.indexing import CuredArgMaxWithValue, CuredArgMinWithValue


def mint_max(input, dim=None, keepdim=False):
    """The largest entry, or the largest along an axis and their places."""
    if dim is None:
        return ops.amax(input)
    index, values = CuredArgMaxWithValue(dim, keepdim)(input)
    return values, index


def mint_min(input, dim=None, keepdim=False):
    """The smallest entry, or the smallest along an axis and their places."""
    if dim is None:
        return ops.amin(input)
    index, values = CuredArgMinWithValue(dim, keepdim)(input)
    return values, index


def einsum(equation, *operands):
    """An Einstein sum."""
    return CuredEinsum(equation)(operands)


FUNCTIONS = {mint.max: mint_max, mint.min: mint_min, mint.einsum: einsum, ops.einsum: einsum}
