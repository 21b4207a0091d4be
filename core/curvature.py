"""Estimators of the Hessian's diagonal, and the average that holds them.

Hutchinson (arXiv:2305.14342, Algorithm 1): for a probe ``u`` with independent entries of mean 0 and variance 1,
``E[u * (H u)] = diag(H)``. With Rademacher probes the estimate of a diagonal Hessian is exact, and entry i has the
variance ``sum_{j != i} H_ij^2``.

Gauss-Newton-Bartlett (Algorithm 2): for targets drawn from the model's own prediction, and ``g_hat`` the gradient of
the *mean* loss over ``B`` of them, ``E[B * g_hat^2]`` is the diagonal of the Gauss-Newton matrix. ``B`` counts the
targets that were really averaged.
"""

from __future__ import annotations


def ema_scalars(*, beta2):
    """The scalars of :func:`ema_kernel`."""
    return {"keep": beta2, "take": 1.0 - beta2}


def warm_ema_scalars(*, beta2, refreshes):
    """The scalars of :func:`ema_kernel` with a warm start: the first estimate is taken whole."""
    later = 1.0 - 0.0 ** (refreshes - 1.0)  # 0 at the first update and 1 afterwards, for numbers and for 0-d tensors
    return {"keep": beta2 * later, "take": 1.0 - beta2 * later}


def ema_kernel(xp, hessian, estimate, *, keep, take):
    """``h = beta2 * h + (1 - beta2) * h_hat``, without bias correction."""
    return (keep * hessian + take * estimate,)


def mean_kernel(xp, total, *, inverse_count):
    """An average from a sum over several estimates."""
    return inverse_count * total


def hutchinson_kernel(xp, probe, product):
    """``u * (H u)`` from a probe and its Hessian-vector product."""
    return probe * product


def gnb_scalars(*, count):
    """The scalars of :func:`gnb_kernel`; ``count`` is B."""
    return {"count": count, "inverse_count": 1.0 / count}


def gnb_kernel(xp, total, *, count, inverse_count):
    """``B * g_hat * g_hat`` with ``g_hat = total / B``.

    ``total`` is the gradient of the *sum* of the sampled losses, so that micro-batches of any sizes add up before the
    square is taken: squaring first would estimate the curvature of each micro-batch's mean, which is too large.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> gnb_kernel(xp, np.array([3.0, -4.0]), **gnb_scalars(count=2.0))
    array([4.5, 8. ])
    """
    mean = inverse_count * total
    return count * (mean * mean)
