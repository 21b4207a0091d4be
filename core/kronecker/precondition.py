"""The natural gradient of a layer, ``V = G^-1 W_grad A^-1`` (Martens and Grosse, arXiv:1503.05671, section 4.2).

Weight matrices are ``[..., out, in]``, with the bias as a last column where the layer has one. Inverses are lists of
the blocks on the diagonal (:mod:`hessiod.core.kronecker.inverses`); a list of one is the whole matrix.
"""

from __future__ import annotations


def times_blocks(xp, matrix, blocks):
    """``matrix @ diag(blocks)``: columns are multiplied block by block."""
    if len(blocks) == 1:
        return xp.matmul(matrix, blocks[0])
    parts = []
    start = 0
    for block in blocks:
        stop = start + block.shape[-1]
        parts.append(xp.matmul(matrix[..., start:stop], block))
        start = stop
    return xp.concat_last(parts)


def blocks_times(xp, blocks, matrix):
    """``diag(blocks) @ matrix`` for symmetric blocks."""
    if len(blocks) == 1:
        return xp.matmul(blocks[0], matrix)
    return xp.transpose(times_blocks(xp, xp.transpose(matrix), blocks))


def precondition(xp, grad, inverse_a, inverse_g):
    """``G^-1 grad A^-1`` with ``inverse_a`` and ``inverse_g`` as lists of symmetric blocks.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> precondition(xp, np.ones((2, 2)), [np.diag([1.0, 2.0])], [np.array([[1.0]]), np.array([[3.0]])])
    array([[1., 2.],
           [3., 6.]])
    """
    return blocks_times(xp, inverse_g, times_blocks(xp, grad, inverse_a))


def precondition_embedding(xp, grad, inverse_a, inverse_g):
    """The same for an embedding's ``[tokens, d]``, where A is diagonal: ``inverse_a`` is ``[tokens]``."""
    return inverse_a[..., None] * times_blocks(xp, grad, inverse_g)


def fisher_product(xp, direction, factor_a, factor_g):
    """``G V A``: what the layer's Fisher matrix makes of a direction."""
    return xp.matmul(factor_g, xp.matmul(direction, factor_a))


def fisher_product_embedding(xp, direction, factor_a, factor_g):
    """The same for an embedding, with ``factor_a`` as ``[tokens]``."""
    return factor_a[..., None] * xp.matmul(direction, factor_g)


def quadratic_model(xp, slope, curvature, length, *, damping):
    """``<grad, delta> + 1/2 <delta, F delta> + 1/2 damping |delta|^2`` from the three sums over all layers."""
    return slope + 0.5 * (curvature + damping * length)
