"""Derivatives of a function of arrays, for the conformance suite; see :class:`hessiod.backends.contract.Autodiff`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch import namespace


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
        """The Hessian's product with vectors."""
        params = [weight.detach().clone().requires_grad_() for weight in weights]
        with torch.enable_grad():
            value = function(namespace, params, list(data))
            grads = torch.autograd.grad(value, params, create_graph=True)
            return torch.autograd.grad(grads, params, grad_outputs=list(vectors), materialize_grads=True)
