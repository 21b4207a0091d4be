"""Second derivatives of operators whose gradient MindSpore computes by an operator that it cannot differentiate.

Each is the derivative of that gradient operator: from its operands, its result and the cotangent of its result to the
cotangents of its operands. MindSpore takes them from its registry, where a C++ derivative is missing.
"""

from __future__ import annotations

from mindspore import ops

SQRT_2_OVER_PI = 0.7978845608028654


def gelu_slopes(x):
    """The first and second derivative of tanh-GELU."""
    inner = SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)
    slope = SQRT_2_OVER_PI * (1.0 + 0.134145 * x * x)
    bend = SQRT_2_OVER_PI * 0.26829 * x
    t = ops.tanh(inner)
    sech = 1.0 - t * t
    first = 0.5 * (1.0 + t) + 0.5 * x * sech * slope
    second = sech * slope + 0.5 * x * (sech * bend - 2.0 * t * sech * slope * slope)
    return first, second


def gelu_grad(primitive):
    """Of ``GeLUGrad(dy, x, y) = dy * gelu'(x)``."""

    def bprop(dy, x, y, out, dout):
        first, second = gelu_slopes(x)
        return dout * first, dout * dy * second, ops.zeros_like(y)

    return bprop


DERIVATIVES = {"GeLUGrad": gelu_grad}
