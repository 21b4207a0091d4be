"""Derivatives of a function of arrays, for the conformance suite; see :class:`hessiod.backends.contract.Autodiff`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch import namespace
from hessiod.backends_torch.derivatives.functions import hvp


class TorchAutodiff:
    """Reverse mode, and reverse over reverse."""

    def value_and_gradients(
        self, function: Callable[..., Any], weights: Sequence[Tensor], data: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The value and one gradient for each weight."""
        params = [weight.detach().clone().requires_grad_() for weight in weights]
        with torch.enable_grad():
            value = function(namespace, params, list(data))
            return value.detach(), torch.autograd.grad(value, params)

    def product(
        self,
        function: Callable[..., Any],
        weights: Sequence[Tensor],
        data: Sequence[Tensor],
        vectors: Sequence[Tensor],
    ) -> Sequence[Tensor]:
        """The Hessian's product with vectors, through the engine that users call."""
        params = [weight.detach().clone().requires_grad_() for weight in weights]
        return hvp(lambda: function(namespace, params, list(data)), params, list(vectors))
