"""The published formulas, as they are printed, in extended precision: what the kernels are held against.

Written from the papers and independently of core/: no host scalars, no rearrangement, bias corrections where the paper
has them. Keys are "rule.kernel"; arguments are the kernel's operands by their names, then the hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = tuple[Any, ...]


def sophia(param, grad, exp_avg, hessian, *, lr, beta1, rho, eps, weight_decay) -> Arrays:
    """Liu et al., arXiv:2305.14342v4, Algorithm 3, lines 6 to 13."""
    m = beta1 * exp_avg + (1 - beta1) * grad
    theta = param - lr * weight_decay * param
    return theta - lr * np.clip(m / np.maximum(rho * hessian, eps), -1, 1), m


def moving_average(hessian, estimate, *, beta2) -> Arrays:
    """The same, line 9."""
    return (beta2 * hessian + (1 - beta2) * estimate,)


def adamw(param, grad, exp_avg, exp_avg_sq, *, lr, beta1, beta2, eps, weight_decay, step) -> Arrays:
    """Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2, the decay times the learning rate as in every framework."""
    m = beta1 * exp_avg + (1 - beta1) * grad
    v = beta2 * exp_avg_sq + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    return param - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * param), m, v


def sgd(param, grad, *, lr, weight_decay) -> Arrays:
    """Gradient descent on the loss plus ``weight_decay / 2 * |theta|^2``."""
    return (param - lr * (grad + weight_decay * param),)


def momentum(param, grad, momentum_buffer, *, lr, momentum, dampening, weight_decay, step) -> Arrays:
    """Sutskever et al., ICML 2013, equations 1 and 2, in the convention of ``torch.optim.SGD``."""
    g = grad + weight_decay * param
    b = momentum * momentum_buffer + (1 if step == 1 else 1 - dampening) * g
    return param - lr * b, b


def nesterov(param, grad, momentum_buffer, *, lr, momentum, dampening, weight_decay, step) -> Arrays:
    """The same, equations 3 and 4."""
    g = grad + weight_decay * param
    b = momentum * momentum_buffer + (1 if step == 1 else 1 - dampening) * g
    return param - lr * (g + momentum * b), b


def hutchinson(probe, product) -> Arrays:
    """arXiv:2305.14342, Algorithm 1."""
    return (probe * product,)


def gauss_newton_bartlett(total, *, count) -> Arrays:
    """arXiv:2305.14342, Algorithm 2, line 5: ``B * g_hat * g_hat``, g_hat the gradient of the mean over B targets."""
    g_hat = total / count
    return (count * g_hat * g_hat,)


FORMULAS: dict[str, Callable[..., Arrays]] = {
    "sophia.step": sophia,
    "sophia.refresh": moving_average,
    "adamw.step": adamw,
    "sgd.step": sgd,
    "sgd-momentum.step": momentum,
    "sgd-nesterov.step": nesterov,
    "hutchinson.estimate": hutchinson,
    "gauss-newton-bartlett.estimate": gauss_newton_bartlett,
}
