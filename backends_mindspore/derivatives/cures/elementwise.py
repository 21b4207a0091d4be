"""Derivatives of the gradients of elementwise operators, which MindSpore lacks.

``XGrad(dy, x) = dy * f'(x)``, so a cotangent c has the images ``c * f'(x)`` and ``c * dy * f''(x)``. Each function here
takes an operator's operands, its result and the cotangent, and returns one cotangent an operand. At a kink f'' is 0, as
in PyTorch, and f' is MindSpore's own.
"""

from __future__ import annotations

from mindspore import ops
from mindspore.ops.auto_generate import HShrinkGrad, HSwishGrad, ReLU6Grad, SoftShrinkGrad
from mindspore.ops.composite.multitype_ops.zeros_like_impl import zeros_like


def elu_grad(primitive):
    """``EluGrad(dy, y)`` with the ELU's result y: the slope is 1, or y + 1 below zero (alpha is 1)."""

    def bprop(dy, y, out, dout):
        below = ops.cast(y < 0, y.dtype)
        return dout * (1.0 + below * y), dout * dy * below

    return bprop


def relu6_grad(primitive):
    """``ReLU6Grad(dy, x)`` is linear in dy, and flat in x."""
    again = ReLU6Grad()

    def bprop(dy, x, out, dout):
        return again(dout, x), zeros_like(x)

    return bprop


def hswish_grad(primitive):
    """``HSwishGrad(dy, x)``: x * relu6(x + 3) / 6, whose second derivative is 1/3 between -3 and 3."""
    again = HSwishGrad()

    def bprop(dy, x, out, dout):
        inside = ops.cast(ops.logical_and(x > -3.0, x < 3.0), x.dtype)
        return again(dout, x), dout * dy * inside / 3.0

    return bprop


def hard_shrink_grad(primitive):
    """``HShrinkGrad(dy, x, lambd)`` is linear in dy, and flat in x."""

    def bprop(dy, x, lambd, out, dout):
        return HShrinkGrad(lambd)(dout, x), zeros_like(x), zeros_like(lambd)

    return bprop


def soft_shrink_grad(primitive):
    """``SoftShrinkGrad(dy, x, lambd)`` is linear in dy, and flat in x."""

    def bprop(dy, x, lambd, out, dout):
        return SoftShrinkGrad(lambd)(dout, x), zeros_like(x), zeros_like(lambd)

    return bprop


DERIVATIVES = {
    "EluGrad": elu_grad,
    "ReLU6Grad": relu6_grad,
    "HSwishGrad": hswish_grad,
    "HShrinkGrad": hard_shrink_grad,
    "SoftShrinkGrad": soft_shrink_grad,
}
