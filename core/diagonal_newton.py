"""DiagonalNewton: the gradient divided by an average of the Hessian's diagonal, made safe.

    h_t     = beta * h_{t-k} + (1 - beta) * h_hat_t                every k steps
    theta_t = (1 - lr * weight_decay) * theta_{t-1} - lr * g_t / (|h_t / (1 - beta^n)|^power + damping)

with Hutchinson's estimate h_hat, a mean over ``num_vectors`` probes, and n the number of curvature updates. The plain
rule of the textbooks divides by h itself: at a saddle it climbs, and its form with a square root is NaN there. The
absolute value makes both descend. Without the bias correction the first steps would be 1 / (1 - beta) too long. The
power is 1 (Newton's) or 0.5 (AdaGrad's scaling, gentler).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessiod.core.curvature import ema_kernel
from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import LEARNING_RATE, WEIGHT_DECAY, Hyperparameter, Kernel, Rule, decay_rate


def diagonal_newton_scalars(*, lr, beta, damping, weight_decay, refreshes):
    """The scalars of both kernels; ``refreshes`` counts the curvature updates, from 1."""
    return {
        "lr": lr,
        "grow": 1.0 / (1.0 - beta**refreshes),
        "damping": damping,
        "shrink": 1.0 - lr * weight_decay,
    }


def diagonal_newton_kernel(xp, theta, grad, h, *, lr, grow, damping, shrink):
    """The parameter after a step with power 1.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> scalars = diagonal_newton_scalars(lr=1.0, beta=0.5, damping=0.0, weight_decay=0.0, refreshes=1)
    >>> theta = np.array([1.0, 1.0])                                     # at f = 2 x^2 - y^2, h = (1 - beta) * (4, -2)
    >>> diagonal_newton_kernel(xp, theta, np.array([4.0, -2.0]), np.array([2.0, -1.0]), **scalars)[0]
    array([0., 2.])
    """
    return (shrink * theta - lr * (grad / (grow * xp.abs(h) + damping)),)


def diagonal_newton_sqrt_kernel(xp, theta, grad, h, *, lr, grow, damping, shrink):
    """The parameter after a step with power 0.5."""
    return (shrink * theta - lr * (grad / (xp.sqrt(grow * xp.abs(h)) + damping)),)


def hessian_ema_scalars(*, beta):
    """The scalars of the curvature's average."""
    return {"keep": beta, "take": 1.0 - beta}


_HYPERPARAMETERS = {
    "lr": LEARNING_RATE,
    "beta": decay_rate(0.9),
    "damping": Hyperparameter(1e-3, low=0.0, open_low=True, way_out="1e-3 to 1 is usual; larger is nearer to SGD"),
    "weight_decay": WEIGHT_DECAY,
}
_REFRESH = Kernel(ema_kernel, hessian_ema_scalars, ("hessian", "estimate"), ("hessian",))
_ARRAYS = (("param", "grad", "hessian"), ("param",))

DIAGONAL_NEWTON = Rule(
    "diagonal-newton",
    ("hessian",),
    _HYPERPARAMETERS,
    Kernel(diagonal_newton_kernel, diagonal_newton_scalars, *_ARRAYS),
    _REFRESH,
)
DIAGONAL_NEWTON_SQRT = Rule(
    "diagonal-newton-sqrt",
    ("hessian",),
    _HYPERPARAMETERS,
    Kernel(diagonal_newton_sqrt_kernel, diagonal_newton_scalars, *_ARRAYS),
    _REFRESH,
)


def diagonal_newton_rule(values: Mapping[str, Any]) -> Rule:
    """The rule that a ``power`` means.

    >>> diagonal_newton_rule({"power": 0.5}).name
    'diagonal-newton-sqrt'
    """
    if values["power"] not in (1, 0.5):
        raise InvalidArgument(f"power: found {values['power']!r}, expected 1 or 0.5")
    return DIAGONAL_NEWTON if values["power"] == 1 else DIAGONAL_NEWTON_SQRT
