"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2).

    m_t     = beta1 * m_{t-1} + (1 - beta1) * g_t
    v_t     = beta2 * v_{t-1} + (1 - beta2) * g_t^2
    theta_t = (1 - lr * weight_decay) * theta_{t-1}
    theta_t = theta_t - lr * m_t / (1 - beta1^t) / (sqrt(v_t / (1 - beta2^t)) + eps)

The decay is multiplied by the learning rate, as in every framework, not by the schedule's multiplier alone. The bias
corrections are scalars and stay on the host: ``sqrt(v / c) = c**-0.5 * sqrt(v)``.
"""

from __future__ import annotations

from hessiod.core.rule import LEARNING_RATE, Hyperparameter, Kernel, Rule, decay_rate


def adamw_scalars(*, lr, beta1, beta2, eps, weight_decay, step):
    """The scalars of :func:`adamw_kernel`, in doubles; ``step`` counts from 1."""
    return {
        "rate": lr / (1.0 - beta1**step),
        "keep1": beta1,
        "take1": 1.0 - beta1,
        "keep2": beta2,
        "take2": 1.0 - beta2,
        "grow": (1.0 - beta2**step) ** -0.5,
        "eps": eps,
        "shrink": 1.0 - lr * weight_decay,
    }


def adamw_kernel(xp, theta, grad, m, v, *, rate, keep1, take1, keep2, take2, grow, eps, shrink):
    """``theta, m, v`` after one step of Algorithm 2; all arrays have the parameter's shape.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> scalars = adamw_scalars(lr=0.1, beta1=0.9, beta2=0.999, eps=0.0, weight_decay=0.0, step=1)
    >>> zero = np.zeros(2)
    >>> adamw_kernel(xp, zero, np.array([1e-3, -50.0]), zero, zero, **scalars)[0].round(12)   # lr * sign(grad)
    array([-0.1,  0.1])
    """
    m = keep1 * m + take1 * grad
    v = keep2 * v + take2 * (grad * grad)
    theta = shrink * theta - rate * (m / (grow * xp.sqrt(v) + eps))
    return theta, m, v


ADAMW = Rule(
    name="adamw",
    slots=("exp_avg", "exp_avg_sq"),
    hyperparameters={
        "lr": LEARNING_RATE,
        "beta1": decay_rate(0.9),
        "beta2": decay_rate(0.999),
        "eps": Hyperparameter(1e-8, low=0.0, way_out="1e-8 is usual"),
        "weight_decay": Hyperparameter(1e-2, low=0.0, way_out="use 0 for no decay"),
    },
    step=Kernel(
        adamw_kernel,
        adamw_scalars,
        ("param", "grad", "exp_avg", "exp_avg_sq"),
        ("param", "exp_avg", "exp_avg_sq"),
    ),
)
