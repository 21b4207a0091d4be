"""The KL trust region: a step may change the model's predictions by so much and no more.

To second order the KL divergence of a step ``-lr V`` is half of ``lr^2 V' F V``, and ``V' F V = <V, grad>`` where V
solves ``F V = grad``. Ba, Grosse and Martens (ICLR 2017, section 5) bound it by scaling the step with::

    nu = min(1, sqrt(kappa / sum_layers lr^2 <V, grad>))

lr is the present one, as a scheduler left it. Without such a bound, or adaptive damping, K-FAC diverges even on small
problems, so it is part of the algorithm.
"""

from __future__ import annotations

from hessiod.core.rule import Hyperparameter

KL_CLIP = Hyperparameter(1e-3, low=0.0, open_low=True, way_out="1e-3 is usual; None turns the trust region off")
TINY = 2.0**-100
"""Stands for 0 in a denominator, exact in float32."""


def inner_product(xp, direction, grad):
    """``<V, grad>``, a 0-d array."""
    return xp.sum(direction * grad)


def kl_scale(xp, change, *, clip):
    """Nu from ``change = sum lr^2 <V, grad>``, a 0-d array, and ``clip``, the paper's kappa.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> [float(kl_scale(xp, np.array(change), clip=1e-2)) for change in (1e-4, 1.0, 0.0)]
    [1.0, 0.1, 1.0]
    """
    return xp.minimum(xp.sqrt(clip / xp.maximum(change, TINY)), 1.0)
