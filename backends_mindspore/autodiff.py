"""Derivatives of a function of arrays, for the conformance suite; see :class:`hessiod.backends.contract.Autodiff`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn

from hessiod.backends_mindspore import namespace
from hessiod.backends_mindspore.derivatives import engine


class Objective(nn.Cell):
    """The function as a net of its data."""

    def __init__(self, function: Callable[..., Any], weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weights = ParameterTuple([Parameter(weight, name=f"weight{i}") for i, weight in enumerate(weights)])

    def construct(self, *data):
        """The function's value."""
        return self.function(namespace, self.weights, data)


class MindSporeAutodiff:
    """Traced, as the engine does it."""

    def value_and_gradients(
        self, function: Callable[..., Any], weights: Sequence[Tensor], data: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The value and one gradient for each weight."""
        net = Objective(function, weights)
        return ms.jit(net.construct)(*data), engine.gradient(net, net.weights, data)

    def product(
        self,
        function: Callable[..., Any],
        weights: Sequence[Tensor],
        data: Sequence[Tensor],
        vectors: Sequence[Tensor],
    ) -> Sequence[Tensor]:
        """The Hessian's product with vectors, through the engine that users call."""
        net = Objective(function, weights)
        return engine.product(net, net.weights, vectors, data)
