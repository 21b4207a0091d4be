"""SGD, plain, with momentum, and with Nesterov's momentum (Sutskever et al., ICML 2013, section 2).

    g_t     = grad_t + weight_decay * theta_{t-1}                  L2, not decoupled
    b_t     = momentum * b_{t-1} + (1 - dampening) * g_t           b_1 = g_1: the first step is not dampened
    theta_t = theta_{t-1} - lr * g_t                               plain
    theta_t = theta_{t-1} - lr * b_t                               momentum
    theta_t = theta_{t-1} - lr * (g_t + momentum * b_t)            Nesterov

Three rules, because they differ in state and memory traffic: the plain one holds no state at all.
:func:`sgd_rule` picks the one that a set of hyperparameters means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import LEARNING_RATE, WEIGHT_DECAY, Kernel, Rule, decay_rate


def sgd_scalars(*, lr, weight_decay):
    """The scalars of :func:`sgd_kernel`."""
    return {"lr": lr, "decay": weight_decay}


def sgd_kernel(xp, theta, grad, *, lr, decay):
    """``theta - lr * (grad + weight_decay * theta)``."""
    return (theta - lr * (grad + decay * theta),)


def momentum_scalars(*, lr, momentum, dampening, weight_decay, step):
    """The scalars of the momentum kernels; ``step`` counts from 1, and the first one is not dampened."""
    later = 1.0 - 0.0 ** (step - 1.0)  # 0 at the first step and 1 afterwards, for numbers and for 0-d tensors
    return {"lr": lr, "keep": momentum, "take": 1.0 - dampening * later, "decay": weight_decay}


def momentum_kernel(xp, theta, grad, b, *, lr, keep, take, decay):
    """``b = momentum * b + (1 - dampening) * g``, then ``theta - lr * b``.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> scalars = momentum_scalars(lr=0.1, momentum=0.5, dampening=0.0, weight_decay=0.0, step=2)
    >>> momentum_kernel(xp, np.array([1.0]), np.array([2.0]), np.array([4.0]), **scalars)
    (array([0.6]), array([4.]))
    """
    b = keep * b + take * (grad + decay * theta)
    return theta - lr * b, b


def nesterov_kernel(xp, theta, grad, b, *, lr, keep, take, decay):
    """``b = momentum * b + g``, then ``theta - lr * (g + momentum * b)``: the gradient looks one step ahead."""
    g = grad + decay * theta
    b = keep * b + take * g
    return theta - lr * (g + keep * b), b


_PLAIN = {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY}
_MOMENTUM = {**_PLAIN, "momentum": decay_rate(0.9), "dampening": decay_rate(0.0)}
_BUFFERED = (("param", "grad", "momentum_buffer"), ("param", "momentum_buffer"))

SGD = Rule("sgd", (), _PLAIN, Kernel(sgd_kernel, sgd_scalars, ("param", "grad"), ("param",)))
SGD_MOMENTUM = Rule(
    "sgd-momentum", ("momentum_buffer",), _MOMENTUM, Kernel(momentum_kernel, momentum_scalars, *_BUFFERED)
)
SGD_NESTEROV = Rule(
    "sgd-nesterov", ("momentum_buffer",), _MOMENTUM, Kernel(nesterov_kernel, momentum_scalars, *_BUFFERED)
)


def sgd_rule(values: Mapping[str, Any]) -> Rule:
    """The rule that SGD's ``momentum``, ``dampening`` and ``nesterov`` mean together.

    >>> sgd_rule({"momentum": 0.9, "dampening": 0.0, "nesterov": True}).name
    'sgd-nesterov'
    """
    if values["nesterov"] and (values["momentum"] == 0 or values["dampening"] != 0):
        raise InvalidArgument(
            f"nesterov: found True with momentum={values['momentum']!r}, dampening={values['dampening']!r}, expected "
            "momentum > 0 and dampening 0; Nesterov's step is defined only there"
        )
    if values["nesterov"]:
        return SGD_NESTEROV
    return SGD_MOMENTUM if values["momentum"] else SGD
