"""First derivatives, and curvature that needs no second ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hessiod.core.errors import InvalidState

if TYPE_CHECKING:
    from hessiod.backends_torch.derivatives.session import Session


def dense(tensor: Tensor) -> Tensor:
    """A sparse embedding's gradient as a plain tensor; others as they are."""
    return tensor.to_dense() if tensor.layout != torch.strided else tensor


def gradient(output: Tensor, params: Sequence[Tensor], **options) -> list[Tensor | None]:
    """``torch.autograd.grad``, which leaves ``.grad`` alone; None where the graph has no path."""
    found = torch.autograd.grad(output, params, allow_unused=True, **options)
    return [None if grad is None else dense(grad) for grad in found]


def gradient_by_backward(
    session: Session, output: Tensor, params: Sequence[Tensor], seed: Tensor | None = None, keep: bool = False
) -> list[Tensor | None]:
    """By ``.backward()``, for what works in no other way; every ``.grad`` is as it was afterwards."""
    for place, param in enumerate(params):
        if getattr(param, "_post_accumulate_grad_hooks", None):
            raise InvalidState(
                f"params[{place}]: found a hook that runs after its gradient is accumulated (an optimizer in the "
                "backward?), and this model's gradients come by .backward() only; remove the hook meanwhile"
            )
    with grads_set_aside(session, params):
        output.backward(seed, retain_graph=keep)
        return [None if param.grad is None else dense(param.grad) for param in params]


@contextmanager
def grads_set_aside(session: Session, params: Sequence[Tensor]) -> Iterator[None]:
    """Keep the ``.grad`` of all parameters of the modules that ran out of the way."""
    every: dict[int, Tensor] = {
        id(param): param for module in session.modules for param in module.parameters(recurse=False)
    }
    every.update((id(param), param) for param in params)
    saved = [(param, param.grad) for param in every.values()]
    for param, _ in saved:
        param.grad = None
    try:
        yield
    finally:
        for param, grad in saved:
            param.grad = grad
