"""Activations from elementary operators."""

from __future__ import annotations

from mindspore import ops
from mindspore.ops.operations import Softplus

from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator


class CuredSeLU(CuredOperator):
    """``SeLU()(x)``, whose first derivative MindSpore's CPU kernel has wrong below zero (arXiv:1706.02515)."""

    def construct(self, x):
        """``scale * x``, or ``scale * alpha * (exp(x) - 1)`` below zero."""
        below = 1.6732632423543772 * (ops.exp(ops.minimum(x, 0.0)) - 1.0)
        return 1.0507009873554805 * ops.where(x > 0, x, below)


class CuredPReLU(CuredOperator):
    """``PReLU()(x, weight)``."""

    def construct(self, x, weight):
        """``x``, or ``weight * x`` below zero, with one weight or one for each channel."""
        if x.ndim > 1:
            weight = weight.reshape((1, -1) + (1,) * (x.ndim - 2))
        return ops.where(x > 0, x, weight * x)


class CuredSoftplusExt(CuredOperator):
    """``SoftplusExt()(x, beta, threshold)``, whose gradient has no CPU kernel."""

    def construct(self, x, beta=1, threshold=20):
        """``log(1 + exp(beta * x)) / beta``, or x where ``beta * x`` is above the threshold."""
        scaled = x * beta
        return ops.where(scaled > threshold, x, SOFTPLUS(scaled) / beta)


SOFTPLUS = Softplus()
OPERATORS = {"SeLU": CuredSeLU, "PReLU": CuredPReLU, "SoftplusExt": CuredSoftplusExt}
