"""SP-NGD's step: momentum as a velocity, and weights that are scaled back (Osawa et al., arXiv:2002.06015, sec. 5.2).

    v_t     = momentum * v_{t-1} - lr * (V_t + weight_decay * theta_{t-1})
    theta_t = theta_{t-1} + v_t

The learning rate is inside the velocity, unlike in :mod:`hessiod.core.sgd`: the two differ where it changes.
"""

from __future__ import annotations

from hessiod.core.rule import LEARNING_RATE, WEIGHT_DECAY, Kernel, Rule, decay_rate

TINY = 2.0**-30
"""About 1e-9, the authors', and exact in float32."""


def velocity_scalars(*, lr, momentum, weight_decay):
    """The scalars of :func:`velocity_kernel`."""
    return {"lr": lr, "keep": momentum, "decay": weight_decay}


def velocity_kernel(xp, theta, grad, v, *, lr, keep, decay):
    """``theta + v, v`` with ``grad`` the natural gradient.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> scalars = velocity_scalars(lr=0.1, momentum=0.5, weight_decay=0.0)
    >>> velocity_kernel(xp, np.array([1.0]), np.array([2.0]), np.array([-0.4]), **scalars)
    (array([0.6]), array([-0.4]))
    """
    v = keep * v - lr * (grad + decay * theta)
    return theta + v, v


HEAVY_BALL = Rule(
    "heavy-ball",
    ("momentum_buffer",),
    {"lr": LEARNING_RATE, "momentum": decay_rate(0.9), "weight_decay": WEIGHT_DECAY},
    Kernel(velocity_kernel, velocity_scalars, ("param", "grad", "momentum_buffer"), ("param", "momentum_buffer")),
)


def rescaled(xp, weight, *, out):
    """A weight scaled to the norm ``sqrt(2 * out)`` where it is longer, as the authors' code does; never lengthened.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> rescaled(xp, np.array([3.0, 4.0]), out=2), rescaled(xp, np.array([0.3, 0.4]), out=2)
    (array([1.2, 1.6]), array([0.3, 0.4]))
    """
    norm = xp.sqrt(xp.sum(weight * weight))
    return weight * xp.minimum((2.0 * out) ** 0.5 / (norm + TINY), 1.0)


def mixed(xp, new, earlier, *, share):
    """Running mixup: ``share * new + (1 - share) * earlier``, with ``earlier`` what came out the last time."""
    return share * new + (1.0 - share) * earlier
