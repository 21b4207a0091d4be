"""The graphs: a user's forward, its gradient, and the gradient's product with a vector.

Reverse mode over reverse mode, traced as a whole. Eagerly, MindSpore 2.10 loses the inner gradient at every view
operator and returns a wrong second derivative without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import ParameterTuple, nn, ops


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

    def construct(self, *inputs):
        """What the user's forward returns."""
        return self.forward(*inputs)


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
        products = [(gradient * vector).sum() for gradient, vector in zip(gradients, vectors)]  # noqa: B905 - not traceable
        return ops.stack(products).sum()


class Product(nn.Cell):
    """The Hessian's product with vectors: the gradient of :class:`Slope`."""

    def __init__(self, forward: Callable[..., Any], weights: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.slope, self.weights = Slope(forward, weights), weights

    @ms.jit
    def construct(self, vectors, *inputs):
        """One array for each weight."""
        return ms.grad(self.slope, None, self.weights)(vectors, inputs)
