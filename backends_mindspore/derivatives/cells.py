"""The graphs: a user's forward, its gradient, and the gradient's product with a vector.

Reverse mode over reverse mode, traced as a whole. Eagerly, MindSpore 2.10 loses the inner gradient at every view
operator and returns a wrong second derivative without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import ParameterTuple, nn, ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.curvature import gauss_newton_bartlett
from hessiod.backends_mindspore.traced import each, inner_product, pairs
from hessiod.core import philox
from hessiod.core.curvature import hutchinson_kernel
from hessiod.core.likelihood import RESIDUALS


class Forward(nn.Cell):
    """A user's Cell or function of its inputs. They are one tuple: MindSpore does not differentiate ``*inputs``."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__(auto_prefix=False)
        self.forward = forward

    def construct(self, inputs):
        """What the user's forward returns."""
        return self.forward(*inputs)


class Whole(nn.Cell):
    """The forward alone, as a graph whose operators are looked at."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__(auto_prefix=False)
        self.forward = forward

    @ms.jit
    def construct(self, *inputs):
        """What the user's forward returns."""
        return self.forward(*inputs)


class WithLoss(nn.Cell):
    """The loss of a net; the last input is the target."""

    def __init__(self, net: nn.Cell, loss_fn: Callable[..., Any]) -> None:
        super().__init__(auto_prefix=False)
        self.net, self.loss_fn = net, loss_fn

    def construct(self, *inputs):
        """The scalar loss."""
        return self.loss_fn(self.net(*inputs[:-1]), inputs[-1])


class Gradient(nn.Cell):
    """The gradient of a scalar forward with respect to weights."""

    def __init__(self, forward: Callable[..., Any], weights: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.forward, self.weights = Forward(forward), weights

    @ms.jit
    def construct(self, *inputs):
        """One array for each weight."""
        return ms.grad(self.forward, None, self.weights)(inputs)


class Slope(nn.Cell):
    """The gradient's product with vectors, a number."""

    def __init__(self, forward: Callable[..., Any], weights: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.forward, self.weights = Forward(forward), weights

    def construct(self, vectors, inputs):
        """``sum_i <g_i, v_i>``."""
        gradients = ms.grad(self.forward, None, self.weights)(inputs)
        return ops.stack(pairs(inner_product, gradients, vectors)).sum()


class Product(nn.Cell):
    """The Hessian's product with vectors: the gradient of :class:`Slope`."""

    def __init__(self, forward: Callable[..., Any], weights: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.slope, self.weights, self.count = Slope(forward, weights), weights, len(weights)

    @ms.jit
    def construct(self, *arguments):
        """One array for each weight, from vectors and inputs in one row: tensors in a tuple would be constants."""
        vectors, inputs = arguments[: self.count], arguments[self.count :]
        return ms.grad(self.slope, None, self.weights)(vectors, inputs)


def hutchinson(probe, product):
    """An estimate from a probe and its product."""
    return hutchinson_kernel(xp, probe, product)


def sum_in_float64(array):
    """The sum of the entries."""
    return ops.cast(array, ms.float64).sum()


class Probed(nn.Cell):
    """``u * (H u)`` for a probe u that is drawn in the graph, and ``u' H u``."""

    def __init__(self, forward: Callable[..., Any], weights: ParameterTuple, seed: int, probe: str) -> None:
        super().__init__(auto_prefix=False)
        self.slope, self.weights = Slope(forward, weights), weights
        self.seed, self.draw = seed, philox.PROBES[probe]

    @ms.jit
    def construct(self, sample, *inputs):
        """One array for each weight, and a number in float64."""
        probes = self.draw(xp, self.weights, seed=self.seed, step=0, sample=sample)
        products = ms.grad(self.slope, None, self.weights)(probes, inputs)
        estimates = pairs(hutchinson, probes, products)
        return estimates, ops.stack(each(sum_in_float64, estimates)).sum()


class GaussNewton(nn.Cell):
    """``B * g_hat^2`` for targets that are drawn in the graph from the forward's output."""

    def __init__(
        self, forward: Callable[..., Any], weights: ParameterTuple, seed: int, likelihood: str, masked: bool
    ) -> None:
        super().__init__(auto_prefix=False)
        self.forward, self.weights = Forward(forward), weights
        self.seed, self.residual, self.masked = seed, RESIDUALS[likelihood], masked
        self.by_row = likelihood == "categorical"

    @ms.jit
    def construct(self, sample, mask, *inputs):
        """One array for each weight; B counts the rows, or the entries, that the mask leaves."""
        logits, pull_back = ms.vjp(self.forward, inputs, weights=self.weights)
        used = ops.ones_like(logits[..., :1]) if self.by_row else ops.ones_like(logits)
        if self.masked:
            used = used * ops.cast(mask != 0, logits.dtype).reshape(used.shape)
        residual = self.residual(xp, logits, self.seed, 0, sample)
        totals = pull_back(ops.cast(residual * used, logits.dtype))[-1]
        return each(gauss_newton_bartlett, totals, ops.cast(ops.cast(used, ms.float32).sum(), ms.float64))
