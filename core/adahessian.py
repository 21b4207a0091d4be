"""AdaHessian: Adam with the Hessian's diagonal in the place of the squared gradient (Yao et al., arXiv:2006.00719,
Algorithm 1).

    D_t     = spatial average of z * (H z)                         every k steps, z Rademacher
    v_t     = beta2 * v_{t-k} + (1 - beta2) * D_t^2
    m_t     = beta1 * m_{t-1} + (1 - beta1) * g_t
    theta_t = (1 - lr * weight_decay) * theta_{t-1}
              - lr * m_t / (1 - beta1^t) / (sqrt(v_t / (1 - beta2^n))^power + eps)

n counts the curvature updates, not the steps: v is an average over n terms, and correcting it by ``beta2^t``, as the
authors' code does, makes it too small for k > 1. eps is the authors' (1e-4); the paper's algorithm has none.

The spatial average is the paper's equation 10, the signed mean over blocks of consecutive entries, or what the authors'
code does for convolutions, the mean of ``|D|`` over the dimensions of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessiod.core.curvature import ema_scalars
from hessiod.core.errors import InvalidArgument
from hessiod.core.philox import size_of
from hessiod.core.rule import Hyperparameter, Kernel, Rule, decay_rate


def adahessian_scalars(*, lr, beta1, beta2, eps, weight_decay, step, refreshes):
    """The scalars of :func:`adahessian_kernel`; ``refreshes`` counts the curvature updates, from 1."""
    return {
        "rate": lr / (1.0 - beta1**step),
        "keep": beta1,
        "take": 1.0 - beta1,
        "grow": (1.0 - beta2**refreshes) ** -0.5,
        "eps": eps,
        "shrink": 1.0 - lr * weight_decay,
    }


def adahessian_kernel(xp, theta, grad, m, v, *, rate, keep, take, grow, eps, shrink):
    """``theta, m`` after one step of Algorithm 1 with Hessian power 1; all arrays have the parameter's shape.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> given = dict(lr=0.5, beta1=0.9, beta2=0.999, eps=0.0, weight_decay=0.0, step=1, refreshes=1)
    >>> v = 0.001 * np.array([4.0, 1.0]) ** 2                            # after one refresh with D = (4, 1)
    >>> adahessian_kernel(xp, np.zeros(2), np.ones(2), np.zeros(2), v, **adahessian_scalars(**given))[0].round(12)
    array([-0.125, -0.5  ])
    """
    m = keep * m + take * grad
    theta = shrink * theta - rate * (m / (grow * xp.sqrt(v) + eps))
    return theta, m


def adahessian_power_scalars(*, lr, beta1, beta2, eps, weight_decay, hessian_power, step, refreshes):
    """The scalars of :func:`adahessian_power_kernel`."""
    return {
        "rate": lr / (1.0 - beta1**step),
        "keep": beta1,
        "take": 1.0 - beta1,
        "grow": (1.0 - beta2**refreshes) ** -0.5,
        "power": hessian_power,
        "eps": eps,
        "shrink": 1.0 - lr * weight_decay,
    }


def adahessian_power_kernel(xp, theta, grad, m, v, *, rate, keep, take, grow, power, eps, shrink):
    """``theta, m`` after one step with any Hessian power in [0, 1]."""
    m = keep * m + take * grad
    theta = shrink * theta - rate * (m / (xp.pow(grow * xp.sqrt(v), power) + eps))
    return theta, m


def square_ema_kernel(xp, v, estimate, *, keep, take):
    """``v = beta2 * v + (1 - beta2) * D^2``; the scalars are :func:`~hessiod.core.curvature.ema_scalars`."""
    return (keep * v + take * (estimate * estimate),)


def kernel_average(xp, estimate):
    """The mean of ``|D|`` over the dimensions after the second, in the place of every entry; other ranks as they are.

    Convolution weights are [out, in, *kernel] (transposed ones [in, out, *kernel]), so 3-D, 4-D and 5-D parameters are
    averaged over the kernel.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> kernel_average(xp, np.array([[[1.0, -3.0]], [[2.0, 2.0]]]))
    array([[[2., 2.]],
    <BLANKLINE>
           [[2., 2.]]])
    """
    shape = estimate.shape
    if len(shape) < 3:
        return estimate
    rows = xp.reshape(xp.abs(estimate), (shape[0], shape[1], size_of(estimate) // max(shape[0] * shape[1], 1)))
    return xp.reshape(xp.sum_last(rows) / xp.sum_last(rows * 0.0 + 1.0) + rows * 0.0, shape)


def block_average(xp, estimate, block):
    """The signed mean over each run of ``block`` consecutive entries; the last run may be shorter.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> block_average(xp, np.array([1.0, -3.0, 2.0, 2.0, 7.0]), 2)
    array([-1., -1.,  2.,  2.,  7.])
    """
    size = size_of(estimate)
    rest = -size % block
    flat = xp.reshape(estimate, (-1,))
    ones = flat * 0.0 + 1.0
    if rest:
        padding = xp.astype(xp.arange(rest, estimate) * 0, estimate.dtype)
        flat, ones = xp.concat([flat, padding]), xp.concat([ones, padding])
    rows, counts = xp.reshape(flat, (-1, block)), xp.reshape(ones, (-1, block))
    means = xp.sum_last(rows) / xp.sum_last(counts) + rows * 0.0
    return xp.reshape(xp.reshape(means, (-1,))[:size], estimate.shape)


def spatial_average(xp, estimate, averaging):
    """What ``spatial_averaging`` means: "none", "kernel" or the length of a block."""
    if averaging == "none":
        return estimate
    if averaging == "kernel":
        return kernel_average(xp, estimate)
    return block_average(xp, estimate, averaging)


_HYPERPARAMETERS = {
    "lr": Hyperparameter(0.15, low=0.0, way_out="0.15 is the authors'; use 0 to hold parameters still"),
    "beta1": decay_rate(0.9),
    "beta2": decay_rate(0.999),
    "eps": Hyperparameter(1e-4, low=0.0, way_out="1e-4 is the authors'"),
    "weight_decay": Hyperparameter(0.0, low=0.0, way_out="use 0 for no decay"),
}
_POWER = Hyperparameter(1.0, low=0.0, below=1.0 + 1e-9, way_out="1 is AdaHessian, 0 is momentum")
_OPERANDS = (("param", "grad", "exp_avg", "exp_hessian_diag_sq"), ("param", "exp_avg"))
_REFRESH = Kernel(square_ema_kernel, ema_scalars, ("exp_hessian_diag_sq", "estimate"), ("exp_hessian_diag_sq",))

ADAHESSIAN = Rule(
    "adahessian",
    ("exp_avg", "exp_hessian_diag_sq"),
    _HYPERPARAMETERS,
    Kernel(adahessian_kernel, adahessian_scalars, *_OPERANDS),
    _REFRESH,
)
ADAHESSIAN_POWER = Rule(
    "adahessian-power",
    ("exp_avg", "exp_hessian_diag_sq"),
    _HYPERPARAMETERS | {"hessian_power": _POWER},
    Kernel(adahessian_power_kernel, adahessian_power_scalars, *_OPERANDS),
    _REFRESH,
)


def adahessian_rule(values: Mapping[str, Any]) -> Rule:
    """The rule that a ``hessian_power`` means.

    >>> adahessian_rule({"hessian_power": 1.0}).name
    'adahessian'
    """
    _POWER.check("hessian_power", values["hessian_power"])
    return ADAHESSIAN if values["hessian_power"] == 1 else ADAHESSIAN_POWER


def check_averaging(averaging: Any) -> None:
    """Raise :class:`InvalidArgument` for a ``spatial_averaging`` that is none of the three."""
    if averaging in ("none", "kernel") or (type(averaging) is int and averaging > 0):
        return
    raise InvalidArgument(
        f"spatial_averaging: found {averaging!r}, expected 'none', 'kernel' or the length of a block, a whole number; "
        "'none' averages nothing"
    )
