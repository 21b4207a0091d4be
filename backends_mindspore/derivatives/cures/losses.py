"""Derivatives of the gradients of losses, which MindSpore lacks.

Each takes the gradient operator's operands, its result and the cotangent of that. A gradient operator is linear in the
cotangent of the loss; where the loss is one number, so is what comes back for it.
"""

from __future__ import annotations

from mindspore import ops
from mindspore.ops.auto_generate import NLLLossGrad
from mindspore.ops.composite.multitype_ops.zeros_like_impl import zeros_like

REDUCTIONS = ("sum", "mean", "none")
"""MindSpore's numbers for words, as places."""


def like(product, slope):
    """A product summed to the shape of the loss's cotangent: all of it for a reduced loss."""
    return product if product.shape == slope.shape else product.sum().reshape(slope.shape)


def log_softmax_grad(primitive):
    """``LogSoftmaxGrad(z, dy, axis) = dy - p * sum(dy)`` with z the log-probabilities and ``p = exp(z)``."""

    def bprop(logits, grad, axis, out, dout):
        p = ops.exp(logits)
        pulled = dout - (dout * p).sum(axis, keepdims=True)
        return -dout * p * grad.sum(axis, keepdims=True), pulled, zeros_like(axis)

    return bprop


def smooth_l1_grad(primitive):
    """``SmoothL1LossGrad(x, y, dy, beta) = dy * clip((x - y) / beta, -1, 1)``, averaged as the loss is."""

    def bprop(x, y, grad, beta, reduction, out, dout):
        scale = 1.0 / x.size if REDUCTIONS[reduction] == "mean" else 1.0
        inverse = 1.0 / beta
        difference = x - y
        inside = ops.cast(ops.abs(difference) < beta, x.dtype)
        clipped = inside * difference * inverse + (1.0 - inside) * ops.sign(difference)
        bent = dout * grad * inside * (inverse * scale)
        return bent, -bent, like(dout * clipped * scale, grad), zeros_like(beta), zeros_like(reduction)

    return bprop


def binary_cross_entropy_grad(primitive):
    """``BinaryCrossEntropyGrad(x, y, dy, w) = w * dy * (x - y) / (x * (1 - x))``, averaged as the loss is.

    The fraction's derivatives are ``(x^2 - 2 x y + y) / (x (1 - x))^2`` in x and ``-1 / (x (1 - x))`` in y.
    """

    def bprop(x, y, grad, weight, reduction, out, dout):
        spread = ops.maximum(x * (1.0 - x), 1e-12)
        scale = 1.0 / x.size if REDUCTIONS[reduction] == "mean" else 1.0
        pulled = dout * scale if weight is None else dout * weight * scale
        bent = pulled * grad * (x * x - 2.0 * x * y + y) / (spread * spread)
        slope = like(pulled * (x - y) / spread, grad)
        weights = zeros_like(weight) if weight is None else dout * scale * grad * (x - y) / spread
        return bent, -pulled * grad / spread, slope, weights, zeros_like(reduction)

    return bprop


def bce_with_logits_grad(primitive):
    """``BinaryCrossEntropyWithLogitsBackward(dy, x, y, w, p) = w * dy * ((1 - y + p y) s - p y)`` with s the sigmoid.

    Its derivative in x is ``w * dy * (1 - y + p y) * s * (1 - s)``, and in y ``w * dy * ((p - 1) s - p)``.
    """

    def bprop(grad, x, y, weight, positive, reduction, out, dout):
        s = ops.sigmoid(x)
        ones = zeros_like(x) + 1.0
        p = ones if positive is None else positive * ones
        scale = 1.0 / x.size if REDUCTIONS[reduction] == "mean" else 1.0
        pulled = dout * scale if weight is None else dout * weight * scale
        mixed = 1.0 - y + p * y
        residual = mixed * s - p * y
        bent = pulled * grad * mixed * s * (1.0 - s)
        target = pulled * grad * ((p - 1.0) * s - p)
        return (
            like(pulled * residual, grad),
            bent,
            target,
            zeros_like(weight),
            zeros_like(positive),
            zeros_like(reduction),
        )

    return bprop


def nll_loss_grad(primitive):
    """``NLLLossGrad(logits, dy, labels, weight, total, ...)`` depends on dy alone, and linearly."""

    def bprop(logits, grad, labels, weight, total, reduction, ignore_index, out, dout):
        unit = NLLLossGrad(REDUCTIONS[reduction], ignore_index)(logits, zeros_like(grad) + 1.0, labels, weight, total)
        pulled = (dout * unit).sum(-1)
        slope = pulled if pulled.shape == grad.shape else pulled.sum().reshape(grad.shape)
        rest = zeros_like(labels), zeros_like(weight), zeros_like(total), zeros_like(reduction)
        return zeros_like(logits), slope, *rest, zeros_like(ignore_index)

    return bprop


DERIVATIVES = {
    "SmoothL1LossGrad": smooth_l1_grad,
    "BinaryCrossEntropyGrad": binary_cross_entropy_grad,
    "BinaryCrossEntropyWithLogitsBackward": bce_with_logits_grad,
    "LogSoftmaxGrad": log_softmax_grad,
    "NLLLossGrad": nll_loss_grad,
}
