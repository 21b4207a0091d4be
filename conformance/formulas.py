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


def warm_average(hessian, estimate, *, beta2, refreshes) -> Arrays:
    """The same, but for the first estimate, which is taken whole."""
    return (estimate if refreshes == 1 else beta2 * hessian + (1 - beta2) * estimate,)


def adamw(param, grad, exp_avg, exp_avg_sq, *, lr, beta1, beta2, eps, weight_decay, step) -> Arrays:
    """Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2, the decay times the learning rate as in every framework."""
    m = beta1 * exp_avg + (1 - beta1) * grad
    v = beta2 * exp_avg_sq + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    return param - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * param), m, v


def adahessian(
    param,
    grad,
    exp_avg,
    exp_hessian_diag_sq,
    *,
    lr,
    beta1,
    beta2,
    eps,
    weight_decay,
    step,
    refreshes,
    hessian_power=1.0,
) -> Arrays:
    """Yao et al., arXiv:2006.00719, Algorithm 1, with the authors' eps and decoupled decay."""
    m = beta1 * exp_avg + (1 - beta1) * grad
    m_hat = m / (1 - beta1**step)
    v_hat = exp_hessian_diag_sq / (1 - beta2**refreshes)
    return param - lr * (m_hat / (np.sqrt(v_hat) ** hessian_power + eps) + weight_decay * param), m


def squared_average(exp_hessian_diag_sq, estimate, *, beta2) -> Arrays:
    """The same, equation 11."""
    return (beta2 * exp_hessian_diag_sq + (1 - beta2) * estimate**2,)


def apollo(mode: str) -> Callable[..., Arrays]:
    """Ma, arXiv:2009.13586, Algorithm 1, in the form of the author's code of August 2021, rebound "constant"."""

    def formula(theta, grad, m, b, d, *, lr, beta, eps, sigma, warmup, warmup_start, weight_decay, step) -> Arrays:
        alpha = (1 - beta) / (1 - beta**step)
        g = grad + weight_decay * theta if mode == "L2" else grad
        new = m + alpha * (g - m)
        norm = np.sum(np.abs(d) ** 4) ** np.longdouble(0.25) + eps / sigma
        v = d / norm
        delta = -np.sum((new - m) / norm * v) - np.sum(b * v**2)
        b = b + delta * v**2
        bound = np.maximum(np.abs(b), sigma)
        direction = new / bound
        if mode == "decoupled":
            direction = direction + weight_decay * theta
        if mode == "stable":
            direction = direction + weight_decay / (np.sum(bound) / max(bound.size, 1)) * theta
        first = warmup_start * lr
        rate = first + (lr - first) * (step - 1) / warmup if step - 1 < warmup else lr
        return theta - rate * direction, new, b, direction

    return formula


def apollo_l2(theta, grad, m, b, *, sigma, **given) -> Arrays:
    """The same with the decay in the gradient, where the last direction follows from m and B."""
    return apollo("L2")(theta, grad, m, b, m / np.maximum(np.abs(b), sigma), sigma=sigma, **given)[:3]


def diagonal_newton(param, grad, hessian, *, lr, beta, damping, weight_decay, refreshes) -> Arrays:
    """The diagonal of a damped Newton step, in absolute value."""
    curvature = np.abs(hessian / (1 - beta**refreshes))
    return (param - lr * (grad / (curvature + damping) + weight_decay * param),)


def diagonal_newton_sqrt(param, grad, hessian, *, lr, beta, damping, weight_decay, refreshes) -> Arrays:
    """The same with the square root of the curvature."""
    curvature = np.sqrt(np.abs(hessian / (1 - beta**refreshes)))
    return (param - lr * (grad / (curvature + damping) + weight_decay * param),)


def hessian_average(hessian, estimate, *, beta) -> Arrays:
    """An exponential moving average."""
    return (beta * hessian + (1 - beta) * estimate,)


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


def heavy_ball(param, grad, momentum_buffer, *, lr, momentum, weight_decay) -> Arrays:
    """Osawa et al., arXiv:2002.06015, section 5.2: the learning rate inside the velocity."""
    v = momentum * momentum_buffer - lr * (grad + weight_decay * param)
    return param + v, v


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
    "sophia-warm.step": sophia,
    "sophia-warm.refresh": warm_average,
    "adamw.step": adamw,
    "adahessian.step": adahessian,
    "adahessian.refresh": squared_average,
    "adahessian-power.step": adahessian,
    "adahessian-power.refresh": squared_average,
    "apollo-l2.step": apollo_l2,
    "apollo-decoupled.step": apollo("decoupled"),
    "apollo-stable.step": apollo("stable"),
    "diagonal-newton.step": diagonal_newton,
    "diagonal-newton.refresh": hessian_average,
    "diagonal-newton-sqrt.step": diagonal_newton_sqrt,
    "diagonal-newton-sqrt.refresh": hessian_average,
    "sgd.step": sgd,
    "sgd-momentum.step": momentum,
    "sgd-nesterov.step": nesterov,
    "heavy-ball.step": heavy_ball,
    "hutchinson.estimate": hutchinson,
    "gauss-newton-bartlett.estimate": gauss_newton_bartlett,
}
