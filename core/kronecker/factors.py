"""The Kronecker factors of a layer's Fisher matrix, from the rows that it saw.

A row is one use of the weight matrix: an example of a linear layer, a token, a position of a convolution, a use of a
shared layer. With R rows, N targets that the loss averages, and ``g`` the gradient of the *sum* of their losses::

    A = 1/R sum_rows a a'           G = 1/N sum_rows g g'

Their Kronecker product is the one of Martens and Grosse (arXiv:1503.05671, section 3) for linear layers and of Grosse
and Martens (arXiv:1602.01407, section 3) for convolutions, who put the number of positions into the other factor. The
product does not depend on the size of a batch, nor does pi-corrected damping (:mod:`hessiod.core.kronecker.damping`)
on how a constant is shared out between the factors.
"""

from __future__ import annotations


def with_ones(xp, rows):
    """Inputs ``[..., R, d]`` with a last column of ones, the coordinate that a bias multiplies."""
    return xp.concat_last((rows, rows[..., :1] * 0.0 + 1.0))


def second_moment(xp, rows):
    """``sum_rows r r'``, ``[..., d, d]``, from rows ``[..., R, d]`` in float32 or wider.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> second_moment(xp, np.array([[1.0, 2.0], [0.0, 1.0]]))
    array([[1., 2.],
           [2., 5.]])
    """
    return xp.matmul(xp.transpose(rows), rows)


def scaled(xp, total, *, scale):
    """A factor from a second moment: what both factors are."""
    return scale * total


def input_factor(xp, total, *, inverse_rows):
    """A from the second moment of inputs (a matrix, or an embedding's token counts) and ``1 / R``."""
    return scaled(xp, total, scale=inverse_rows)


def gradient_scale(*, targets, loss_gradient):
    """What a sum of ``g g'`` is multiplied by to give G.

    ``loss_gradient`` is what the rows were gradients of, as a multiple of the sum of the losses of all N targets: 1 for
    targets that were sampled and pulled back as a sum, ``1 / N`` for the user's mean loss, and the GradScaler's scale
    times that where one is in use.
    """
    return {"scale": 1.0 / (targets * loss_gradient * loss_gradient)}


def gradient_factor(xp, total, *, scale):
    """G from the second moment of output gradients and :func:`gradient_scale`."""
    return scaled(xp, total, scale=scale)


def average_scalars(*, decay, refreshes):
    """The weights of a running average: ``keep = min(1 - 1/k, decay)`` for the k-th refresh (Martens and Grosse).

    The first statistic is taken whole, the first few are averaged evenly, and no start value is left in it.

    >>> [round(average_scalars(decay=0.95, refreshes=k)["keep"], 3) for k in (1, 2, 4, 100)]
    [0.0, 0.5, 0.75, 0.95]
    """
    even = 1.0 - 1.0 / refreshes
    keep = 0.5 * (even + decay - abs(even - decay))  # the smaller; Python's min cannot be traced on tensors
    return {"keep": keep, "take": 1.0 - keep}


def average(xp, factor, statistic, *, keep, take):
    """``keep * factor + take * statistic``."""
    return keep * factor + take * statistic
