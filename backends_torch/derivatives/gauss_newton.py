"""Gradients of losses over sampled targets, which are all that the Gauss-Newton-Bartlett estimate needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.derivatives.gradients import gradient, gradient_by_backward
from hessiod.backends_torch.derivatives.parallel import group_of, is_split, place_of, rank_and_size, summed
from hessiod.backends_torch.derivatives.places import nodes
from hessiod.backends_torch.derivatives.refusals import reentrant_checkpoint
from hessiod.backends_torch.derivatives.session import Session
from hessiod.backends_torch.draws import DRAWS
from hessiod.backends_torch.precision import widened, zeros_for
from hessiod.core.curvature import gnb_kernel, gnb_scalars
from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.core.likelihood import RESIDUALS


def sampled_squares(
    session: Session,
    closures: Sequence[Callable[[], Any]],
    masks: Sequence[Any],
    samples: int,
    seed: int,
    likelihood: str,
) -> Iterator[list[Tensor]]:
    """``B * g_hat^2`` for each draw, over the targets of all closures and processes together."""
    if len(masks) != len(closures):
        raise InvalidArgument(f"mask: found {len(masks)}, expected one for each of {len(closures)} closures")
    parts = [Part(session, closure, mask, likelihood) for closure, mask in zip(closures, masks, strict=True)]
    for sample in range(samples):
        totals = [zeros_for(param) for param in session.params]
        count = torch.zeros((), dtype=torch.float64)
        for place, part in enumerate(parts):
            last = len(parts) > 1 or sample + 1 == samples
            number = sample * len(parts) + place
            count += part.add(totals, seed, number, last)
        group = group_of(session.params, session.wrappers)
        if group is not None:
            count = summed(count.to(session.params[0].device), group)
            totals = [total if is_split(total) else summed(total, group) for total in totals]
        if count == 0:
            raise InvalidState("mask: every target is ignored; skip batches that hold only padding")
        scalars = gnb_scalars(count=count.item())
        yield [gnb_kernel(xp, total, **scalars) for total in totals]


class Part:
    """A closure's output, kept for as long as draws are taken from it."""

    def __init__(self, session: Session, closure: Callable[[], Any], mask: Any, likelihood: str) -> None:
        self.session, self.closure, self.mask, self.likelihood = session, closure, mask, likelihood
        self.logits: Tensor | None = None

    def add(self, totals: list[Tensor], seed: int, number: int, last: bool) -> Tensor:
        """Add the gradient of one draw's sum of losses to ``totals``; return the number of targets."""
        logits = self.logits if self.logits is not None else self._output()
        self.logits = None if last else logits
        session = self.session
        group = group_of(session.params, session.wrappers)
        residual = residual_of(logits, self.likelihood, seed, 0, number, group)
        used = used_targets(logits, self.mask, self.likelihood)
        residual = torch.where(used, residual, 0.0).to(logits.dtype)
        grads = output_gradients(session, logits, residual, keep=not last)
        if all(grad is None for grad in grads):
            raise InvalidArgument("closure: its output does not depend on any of params")
        for total, grad in zip(totals, grads, strict=True):
            if grad is not None:
                total += widened(grad)
        return used.sum().to("cpu", torch.float64)

    def _output(self) -> Tensor:
        return checked_output(self.session.run(self.closure), "closure", self.likelihood)


def residual_of(logits: Tensor, likelihood: str, seed: int, step: int, draw: int, group: Any) -> Tensor:
    """The residual of sampled targets; those of several processes are numbered on, in the order of their ranks.

    So together they draw what one process draws that has the parts of the batch one after another.
    """
    targets = logits[..., 0].numel() if likelihood == "categorical" else logits.numel()
    first = place_of(targets, group, logits.device)
    return RESIDUALS[likelihood](xp, widened(logits.detach()), seed, step, draw, first, DRAWS[likelihood])


def output_gradients(session: Session, logits: Tensor, residual: Tensor, keep: bool) -> list[Tensor | None]:
    """``J' r`` for a residual at the model's output; of shards, the sum over their processes."""
    params = session.params
    if session.sharded is not None:
        _, size = rank_and_size(group_of(params, session.wrappers))  # fully_shard averages
        grads = gradient_by_backward(session, logits, params, residual, keep)
        return [None if grad is None else grad * size for grad in grads]
    if reentrant_checkpoint(list(nodes(logits))) is not None:
        return gradient_by_backward(session, logits, params, residual, keep)
    return gradient(logits, params, grad_outputs=residual, retain_graph=keep)


def checked_output(logits: Any, name: str, likelihood: str) -> Tensor:
    """A model's output with a graph and, if targets are classes, an axis of them; or an error."""
    if not isinstance(logits, Tensor) or not logits.requires_grad:
        raise InvalidArgument(
            f"{name}: found {type(logits).__name__} without a graph, expected the model's output from which the "
            "loss is computed"
        )
    if is_split(logits):
        raise InvalidArgument(
            f"{name}: found a DTensor, of which each process holds a part; pass it as {name}.full_tensor(), or give "
            "the last layer output_layouts=Replicate()"
        )
    if likelihood == "categorical" and (logits.dim() < 2 or logits.shape[-1] < 2):
        raise InvalidArgument(
            f"{name}: found the shape {tuple(logits.shape)}, expected [..., classes] with at least 2 classes on "
            "the last axis; move the class axis there, or choose another likelihood="
        )
    return logits


def used_targets(logits: Tensor, mask: Any, likelihood: str) -> Tensor:
    """The targets that count, broadcastable over the output: its entries, or its rows of classes."""
    shape = logits.shape[:-1] if likelihood == "categorical" else logits.shape
    if mask is None:
        used = torch.ones(shape, dtype=torch.bool, device=logits.device)
    else:
        used = torch.as_tensor(mask, device=logits.device) != 0
        if used.shape != shape:
            raise InvalidArgument(
                f"mask: found the shape {tuple(used.shape)}, expected {tuple(shape)}, one entry a target"
            )
    return used[..., None] if likelihood == "categorical" else used
