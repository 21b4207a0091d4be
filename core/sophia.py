"""Sophia: momentum divided by a clipped diagonal Hessian (Liu et al., arXiv:2305.14342, Algorithm 3).

Kernels in the order a step uses them: the curvature estimate (:mod:`hessiod.core.curvature`) is folded into ``h`` on
the steps where it is due, then the parameter moves::

    h_t     = beta2 * h_{t-k} + (1 - beta2) * h_hat_t             every k steps, first at step 1
    m_t     = beta1 * m_{t-1} + (1 - beta1) * g_t
    theta_t = (1 - lr * weight_decay) * theta_{t-1}
    theta_t = theta_t - lr * clip(m_t / max(rho * h_t, eps), 1)

Neither average is bias-corrected. Where nothing is clipped the step is ``lr * m / (rho * h)``; where ``h <= 0`` it is
``lr * sign(m)`` for every ``|m| >= eps``. The paper writes gamma for rho; its first version wrote the same update as
``clip(m / max(h, eps), rho)`` with ``lr * rho`` in the place of ``lr``.
"""

from __future__ import annotations

from dataclasses import replace

from hessiod.core.curvature import ema_kernel, ema_scalars, warm_ema_scalars
from hessiod.core.rule import LEARNING_RATE, WEIGHT_DECAY, Hyperparameter, Kernel, Rule, decay_rate


def sophia_scalars(*, lr, beta1, rho, eps, weight_decay):
    """The scalars of :func:`sophia_kernel`, in doubles."""
    return {
        "lr": lr,
        "keep": beta1,
        "take": 1.0 - beta1,
        "rho": rho,
        "eps": eps,
        "shrink": 1.0 - lr * weight_decay,
    }


def sophia_kernel(xp, theta, grad, m, h, *, lr, keep, take, rho, eps, shrink):
    """``theta, m`` after one step of Algorithm 3, lines 6 and 10 to 12; all arrays have the parameter's shape.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> scalars = sophia_scalars(lr=0.1, beta1=0.0, rho=0.5, eps=1e-12, weight_decay=0.0)
    >>> theta, grad, h = np.zeros(3), np.ones(3), np.array([4.0, 1.0, -1.0])
    >>> sophia_kernel(xp, theta, grad, np.zeros(3), h, **scalars)[0]      # lr/(rho*h), clipped, sign step
    array([-0.05, -0.1 , -0.1 ])
    """
    m = keep * m + take * grad
    ratio = xp.clip(m / xp.maximum(rho * h, eps), -1.0, 1.0)
    theta = shrink * theta - lr * ratio
    return theta, m


def clip_scalars(*, rho, eps):
    """The scalars of :func:`clipped_kernel`."""
    return {"rho": rho, "eps": eps}


def clipped_kernel(xp, m, h, *, rho, eps):
    """How many entries the clip holds back: those with ``|m| >= max(rho * h, eps)``.

    Divided by the number of entries it is the clip fraction, one minus the win rate of the authors' code.
    """
    return xp.sum(xp.astype(xp.abs(m) >= xp.maximum(rho * h, eps), xp.float32))


SOPHIA = Rule(
    name="sophia",
    slots=("exp_avg", "hessian"),
    hyperparameters={
        "lr": LEARNING_RATE,
        "beta1": decay_rate(0.96),
        "beta2": decay_rate(0.99),
        "rho": Hyperparameter(0.05, low=0.0, open_low=True, way_out="0.01 to 0.1 is usual; smaller clips more"),
        "eps": Hyperparameter(1e-12, low=0.0, open_low=True, way_out="1e-12 is the paper's"),
        "weight_decay": WEIGHT_DECAY,
    },
    step=Kernel(sophia_kernel, sophia_scalars, ("param", "grad", "exp_avg", "hessian"), ("param", "exp_avg")),
    refresh=Kernel(ema_kernel, ema_scalars, ("hessian", "estimate"), ("hessian",)),
    measures={"clip_fraction": Kernel(clipped_kernel, clip_scalars, ("exp_avg", "hessian"), ("count",))},
)

SOPHIA_WARM = replace(
    SOPHIA, name="sophia-warm", refresh=Kernel(ema_kernel, warm_ema_scalars, ("hessian", "estimate"), ("hessian",))
)
"""Sophia whose first curvature estimate is taken whole, not times ``1 - beta2``: h starts at its right size, and the
clip does not hold back nearly every entry for the first hundreds of steps."""
