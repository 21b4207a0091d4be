"""Damping: how much of the identity is added to the factors before they are inverted.

Factored Tikhonov damping (Martens and Grosse, arXiv:1503.05671, section 6.3) stands for ``A (x) G + damping * I``::

    (A + pi sqrt(damping) I) (x) (G + sqrt(damping) / pi I),      pi^2 = (tr A / dim A) / (tr G / dim G)

pi makes it independent of how a constant is shared out between the factors: with ``c A`` and ``G / c`` both damped
factors change by c and 1/c, and their product stays.
"""

from __future__ import annotations

from math import isfinite

from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Hyperparameter

DAMPING = Hyperparameter(
    1e-3, low=0.0, open_low=True, way_out="1e-4 to 1e-1 is usual; larger is closer to gradient descent"
)

RAISE, ATTEMPTS = 10.0, 30
"""What damping is multiplied by when a damped factor is not positive definite, and how often."""


def pi_kernel(xp, trace_a, trace_g, size_a, size_g):
    """``pi`` from the factors' traces, ``[..., 1, 1]``, and sizes; 1 where a trace is 0, as in a dead layer.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> pi_kernel(xp, np.array([8.0, 1.0]), np.array([3.0, 0.0]), 2, 3)
    array([2., 1.])
    """
    alive = xp.astype(trace_a > 0.0, trace_a.dtype) * xp.astype(trace_g > 0.0, trace_a.dtype)
    dead = 1.0 - alive
    return xp.sqrt(size_g * trace_a * alive + dead) / xp.sqrt(size_a * trace_g * alive + dead)


def root_scalars(*, damping):
    """The scalar of :func:`factored`: ``sqrt(damping)``."""
    return {"root": damping**0.5}


def factored(xp, trace_a, trace_g, size_a, size_g, *, root):
    """The damping of A and that of G, each ``[..., 1, 1]``: ``pi sqrt(damping)`` and ``sqrt(damping) / pi``."""
    pi = pi_kernel(xp, trace_a, trace_g, size_a, size_g)
    return root * pi, root / pi


class LevenbergMarquardt:
    """Damping that follows how well the quadratic model predicts the loss (Martens and Grosse, section 6.5).

        rho = (L(theta + delta) - L(theta)) / M(delta)
        damping *= w^T  if rho > 3/4,     damping /= w^T  if rho < 1/4,      w = 19/20, every T steps

    Args:
        every: T.
        low, high: bounds of the damping.
    """

    def __init__(self, every: int = 5, low: float = 1e-8, high: float = 1e4) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise InvalidArgument(f"adapt_every: found {every!r}, expected a whole number of steps >= 1; 5 is usual")
        self.factor, self.low, self.high = (19.0 / 20.0) ** every, low, high

    def next(self, damping: float, before: float, after: float, model: float) -> float:
        """The damping after a step that changed the loss from ``before`` to ``after`` where ``model`` was predicted.

        A loss that is no longer finite counts as the worst prediction. A model that promised nothing says nothing.

        >>> rule = LevenbergMarquardt(every=1)
        >>> [round(rule.next(1.0, 2.0, after, -1.0), 3) for after in (1.0, 1.5, 2.0)]
        [0.95, 1.0, 1.053]
        """
        if not model < 0.0:
            return damping
        ratio = (after - before) / model if isfinite(after) else -1.0
        if ratio > 0.75:
            damping = damping * self.factor
        elif ratio < 0.25:
            damping = damping / self.factor
        return min(max(damping, self.low), self.high)


def warmed_up(damping: float, start: float, steps: int, step: int) -> float:
    """Damping that falls from ``start`` to ``damping`` over ``steps`` steps, a straight line in its logarithm.

    SP-NGD starts with much damping because early statistics are poor (Osawa et al., arXiv:2002.06015).

    >>> [round(warmed_up(1e-4, 1e-2, 2, step), 6) for step in (1, 2, 3, 9)]
    [0.01, 0.001, 0.0001, 0.0001]
    """
    if steps <= 0 or step > steps:
        return damping
    share = (step - 1) / steps
    return start * (damping / start) ** share
