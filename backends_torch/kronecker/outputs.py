"""Second moments of the output gradients of many layers, of most by one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.matrices import KINDS, second_moments

Use = tuple[AnyLayer, Tensor, Any]
"""A layer, the gradient of its output, and what its forward kept for that."""


def outputs_of(uses: Sequence[Use]) -> list[Tensor]:
    """What ``outputs`` of each layer brings: of gradients that are rows as they lie, together.

    The others are copied for it, and so taken one by one: copies of all might not fit into memory.
    """
    dense = [grad if as_it_lies(layer, grad) else None for layer, grad, _ in uses]
    together = iter(second_moments([grad.reshape(-1, grad.shape[-1]) for grad in dense if grad is not None]))
    return [
        layer.outputs(grad, context) if lies is None else next(together)
        for (layer, grad, context), lies in zip(uses, dense, strict=True)
    ]


def as_it_lies(layer: AnyLayer, grad: Tensor) -> bool:
    """Whether an output's gradient has the rows that the layer wants, one behind the other."""
    return layer.kind == "linear" and grad.dtype in KINDS and grad.is_contiguous()
