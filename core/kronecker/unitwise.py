"""Scale and shift of BatchNorm and LayerNorm: one 2 x 2 Fisher block for each channel.

Unit-wise natural gradient (Osawa et al., arXiv:2002.06015, section 4.2): the block of channel c is the mean over
examples of the outer product of ``(d gamma_c, d beta_c)``, of the sum of the losses. It is inverted in closed form.
"""

from __future__ import annotations


def unit_sums(xp, scale_rows, shift_rows):
    """``sum_n`` of the products of per-example gradients ``[N, C]``: ``(gg, gb, bb)``, each ``[1, C]``."""
    return (
        xp.sum_rows(scale_rows * scale_rows),
        xp.sum_rows(scale_rows * shift_rows),
        xp.sum_rows(shift_rows * shift_rows),
    )


def precondition_unit(xp, scale_grad, shift_grad, gg, gb, bb, *, damping):
    """``(F_c + damping I)^-1 (d gamma_c, d beta_c)`` for every channel; all arrays of one shape.

    ``gg * bb - gb^2`` is not negative for a mean of outer products; rounding below 0 is cut off, so that the
    determinant is at least ``damping^2``.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> one = np.ones(1)
    >>> precondition_unit(xp, one, one, 3 * one, one, 2 * one, damping=1.0)   # inverse of [[4, 1], [1, 3]] times (1, 1)
    (array([0.18181818]), array([0.27272727]))
    """
    spread = xp.maximum(gg * bb - gb * gb, 0.0)
    determinant = spread + damping * (gg + bb + damping)
    scale = ((bb + damping) * scale_grad - gb * shift_grad) / determinant
    shift = ((gg + damping) * shift_grad - gb * scale_grad) / determinant
    return scale, shift


def precondition_scale(xp, grad, square, *, damping):
    """``grad / (F_c + damping)`` for a layer with a scale and no shift, or the other way round."""
    return grad / (square + damping)
