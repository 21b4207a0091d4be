"""Apollo: a diagonal quasi-Newton method with a per-tensor weak secant equation (Ma, arXiv:2009.13586, Algorithm 1).

Not the APOLLO of arXiv:2412.05270, a memory-efficient Adam. The form of August 2021, with sigma = 0.01 and the rebound
"constant"; every dot product and norm is over one tensor::

    a       = (1 - beta) / (1 - beta^t)                            so that m is the bias-corrected average
    g_t     = grad + weight_decay * theta_{t-1}                    mode "L2" only
    m_t     = m_{t-1} + a * (g_t - m_{t-1})
    e       = |d_{t-1}|_4 + eps / sigma,     v = d_{t-1} / e
    delta   = -a * <(g_t - m_{t-1}) / e, v> - sum(B_{t-1} * v^2)
    B_t     = B_{t-1} + delta * v^2                                so that d'B_t d = -(m_t - m_{t-1})'d, up to e
    D_t     = max(|B_t|, sigma)
    d_t     = m_t / D_t  [+ weight_decay * theta  |  + weight_decay / mean(D_t) * theta]      "decoupled" | "stable"
    theta_t = theta_{t-1} - lr_t * d_t

A decay in the direction enters the next secant, as in the author's code; there d is stored. In mode "L2" it is not:
``m / max(|B|, sigma)`` gives it again, bit for bit. ApolloW is "decoupled". During
the first ``warmup`` steps lr is multiplied by a share that rises linearly from ``warmup_start`` to 1; a scheduler sets
lr itself, so the two compose. Without a warm-up the first step is plain SGD with the rate lr / sigma.

Theorem 1: (lr, sigma, eps) and (c * lr, c * sigma, eps) give the same trajectory. The paper's own eps is the floor
eps / sigma here, which goes with 1 / c.
"""

from __future__ import annotations

from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Hyperparameter, Kernel, Rule, decay_rate


def apollo_scalars(*, lr, beta, eps, sigma, warmup, warmup_start, weight_decay, step):
    """The scalars of the three kernels."""
    none = 0.0**warmup  # 1 without a warm-up, for numbers and for 0-d tensors
    done = 0.5 * (step - 1.0 + warmup - abs(step - 1.0 - warmup))  # the smaller of step - 1 and warmup, exactly
    share = (done + none) / (warmup + none)
    return {
        "rate": lr * (warmup_start + (1.0 - warmup_start) * share),
        "gain": (1.0 - beta) / (1.0 - beta**step),
        "floor": eps / sigma,
        "sigma": sigma,
        "decay": weight_decay,
    }


def secant(xp, change, b, d, gain, floor):
    """B after its update. ``e`` is taken out of the sums, so that one sweep over the arrays gives all three.

    It is taken out of ``v`` as well: delta * v^2 = delta / e^2 * d^2, where only numbers are divided.
    """
    square = d * d
    e = xp.sqrt(xp.sqrt(xp.sum(square * square))) + floor
    delta = -((gain * xp.sum(change * d) + xp.sum(b * square)) / e) / e
    return b + ((delta / e) / e) * square


def l2_kernel(xp, theta, grad, m, b, *, rate, gain, floor, sigma, decay):
    """``theta, m, b`` after one step with the decay added to the gradient; all arrays have the parameter's shape.

    The last direction is not stored: it is ``m / max(|B|, sigma)`` of the state as it is.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> given = dict(lr=0.01, beta=0.9, eps=1e-4, sigma=0.01, warmup=0, warmup_start=1e-3, weight_decay=0.0, step=1)
    >>> zero = np.zeros(2)
    >>> l2_kernel(xp, zero, np.array([1.0, -2.0]), zero, zero, **apollo_scalars(**given))[0]    # lr/sigma = 1
    array([-1.,  2.])
    """
    change = grad + decay * theta - m
    b_new = secant(xp, change, b, m / xp.maximum(xp.abs(b), sigma), gain, floor)
    m = m + gain * change
    theta = theta - rate * (m / xp.maximum(xp.abs(b_new), sigma))
    return theta, m, b_new


def decoupled_kernel(xp, theta, grad, m, b, d, *, rate, gain, floor, sigma, decay):
    """``theta, m, b, d`` after one step with the decay added to the direction: ApolloW."""
    change = grad - m
    b = secant(xp, change, b, d, gain, floor)
    m = m + gain * change
    d = m / xp.maximum(xp.abs(b), sigma) + decay * theta
    theta = theta - rate * d
    return theta, m, b, d


def stable_kernel(xp, theta, grad, m, b, d, *, rate, gain, floor, sigma, decay):
    """``theta, m, b, d`` after one step with the decay added to the direction and divided by the mean of D."""
    change = grad - m
    b = secant(xp, change, b, d, gain, floor)
    m = m + gain * change
    bound = xp.maximum(xp.abs(b), sigma)
    d = m / bound + decay * (theta / xp.mean(bound))
    theta = theta - rate * d
    return theta, m, b, d


def direction_scalars(*, sigma):
    """The scalars of :func:`direction_kernel`."""
    return {"sigma": sigma}


def direction_kernel(xp, m, b, *, sigma):
    """The square of the last direction's Euclidean norm, where the direction is not stored."""
    d = m / xp.maximum(xp.abs(b), sigma)
    return xp.sum(d * d)


_HYPERPARAMETERS = {
    "lr": Hyperparameter(0.01, low=0.0, way_out="0.01 is the author's, with warmup=500"),
    "beta": decay_rate(0.9),
    "eps": Hyperparameter(1e-4, low=0.0, open_low=True, way_out="1e-4 is the author's"),
    "sigma": Hyperparameter(0.01, low=0.0, open_low=True, way_out="0.01 is the author's; it scales with lr"),
    "warmup": Hyperparameter(500, low=0.0, way_out="give a number of steps; 0 for none"),
    "warmup_start": Hyperparameter(1e-3, low=0.0, below=1.0 + 1e-9, way_out="1e-3 is the author's lr / 1000"),
    "weight_decay": Hyperparameter(0.0, low=0.0, way_out="use 0 for no decay"),
}
_SLOTS = ("exp_avg_grad", "approx_hessian")
_ARRAYS = (("param", "grad", *_SLOTS), ("param", *_SLOTS))
_STORED = (("param", "grad", *_SLOTS, "update"), ("param", *_SLOTS, "update"))

APOLLOS = {
    "L2": Rule(
        "apollo-l2",
        _SLOTS,
        _HYPERPARAMETERS,
        Kernel(l2_kernel, apollo_scalars, *_ARRAYS),
        measures={"direction_norm": Kernel(direction_kernel, direction_scalars, _SLOTS, ("square",))},
    ),
    "decoupled": Rule(
        "apollo-decoupled",
        (*_SLOTS, "update"),
        _HYPERPARAMETERS,
        Kernel(decoupled_kernel, apollo_scalars, *_STORED),
    ),
    "stable": Rule(
        "apollo-stable",
        (*_SLOTS, "update"),
        _HYPERPARAMETERS,
        Kernel(stable_kernel, apollo_scalars, *_STORED),
    ),
}


def apollo_rule(weight_decay_type: str) -> Rule:
    """The rule of a mode of weight decay.

    >>> apollo_rule("decoupled").name
    'apollo-decoupled'
    """
    if weight_decay_type not in APOLLOS:
        raise InvalidArgument(
            f"weight_decay_type: found {weight_decay_type!r}, expected one of {', '.join(APOLLOS)}; 'decoupled' is "
            "ApolloW"
        )
    return APOLLOS[weight_decay_type]
