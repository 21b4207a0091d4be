"""Scalar functions of weights and data, written with the namespace, whose derivatives every backend must have right.

Constants are exact in float32, so that every framework computes the same function in float64 too. None has a kink.
"""

from __future__ import annotations

EPSILON = 2.0**-10
STEEPNESS = 1.75


def quadratic(xp, weights, data):
    """``x' A x / 2 + b' x`` with an indefinite A: some curvature is negative."""
    (x,), (matrix, slope) = weights, data
    return xp.sum(x * (0.5 * xp.matmul(matrix, x) + slope))


def rosenbrock(xp, weights, data):
    """``sum 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2``."""
    (x,) = weights
    last, first = x[1:], x[:-1]
    bend, rest = last - first * first, 1.0 - first
    return xp.sum(100.0 * bend * bend + rest * rest)


def poisson(xp, weights, data):
    """A Poisson regression: the mean of ``exp(eta) - y eta`` with ``eta = X w``."""
    (w,), (inputs, targets) = weights, data
    eta = xp.matmul(inputs, w)
    return xp.mean(xp.exp(eta) - targets * eta)


def cross_entropy(xp, logits, targets):
    """The mean over rows of ``log sum exp(z) - <y, z>`` with one-hot y."""
    return xp.mean(xp.log(xp.sum_last(xp.exp(logits))) - xp.sum_last(targets * logits))


def logistic(xp, weights, data):
    """A softmax regression with a quadratic penalty."""
    (w,), (inputs, targets) = weights, data
    return cross_entropy(xp, xp.matmul(inputs, xp.transpose(w)), targets) + 0.125 * xp.sum(w * w)


def tanh(xp, x):
    """``2 / (1 + exp(-2 x)) - 1``."""
    return 2.0 / (1.0 + xp.exp(-2.0 * x)) - 1.0


def tanh_network(xp, weights, data):
    """A classifier with one hidden layer of tanh, and biases."""
    (w1, b1, w2, b2), (inputs, targets) = weights, data
    hidden = tanh(xp, xp.matmul(inputs, xp.transpose(w1)) + b1)
    return cross_entropy(xp, xp.matmul(hidden, xp.transpose(w2)) + b2, targets)


def normalized(xp, x, scale, shift):
    """LayerNorm over a last axis of a power of two; ``v^-1/2`` is ``exp(-log(v) / 2)``."""
    share = 1.0 / x.shape[-1]
    centred = x - share * xp.sum_last(x)
    variance = share * xp.sum_last(centred * centred)
    return centred * xp.exp(-0.5 * xp.log(variance + EPSILON)) * scale + shift


def normalization(xp, weights, data):
    """A regression on LayerNorm of a linear map, at inputs so small that its epsilon counts."""
    (w, scale, shift), (inputs, targets) = weights, data
    gap = normalized(xp, xp.matmul(inputs, xp.transpose(w)), scale, shift) - targets
    return 0.5 * xp.mean(gap * gap)


def attention(xp, weights, data):
    """Causal self-attention of one head before a classifier."""
    (query, key, value, head), (inputs, mask, targets) = weights, data
    q, k, v = (xp.matmul(inputs, xp.transpose(w)) for w in (query, key, value))
    scores = xp.exp(0.5 * xp.matmul(q, xp.transpose(k))) * mask
    mixed = xp.matmul(scores / xp.sum_last(scores), v)
    return cross_entropy(xp, xp.matmul(mixed, xp.transpose(head)), targets)


def gated_network(xp, weights, data):
    """A regression with ``x sigmoid(1.75 x)``, a smooth unit like GELU and SiLU, in two layers."""
    (w1, w2, w3), (inputs, targets) = weights, data
    hidden = inputs
    for w in (w1, w2):
        z = xp.matmul(hidden, xp.transpose(w))
        hidden = z / (1.0 + xp.exp(-STEEPNESS * z))
    gap = xp.matmul(hidden, xp.transpose(w3)) - targets
    return 0.5 * xp.mean(gap * gap)
