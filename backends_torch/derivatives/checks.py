"""Whether a product is what it says: against differences of gradients, and for parameters that the graph has lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.derivatives.methods import Differences, Products, moved, scalar, step_size
from hessiod.backends_torch.derivatives.parallel import full_like, is_split, sharded_like, whole
from hessiod.backends_torch.derivatives.session import Session
from hessiod.core import philox

SMOOTH, WRONG = 0.02, 0.1
"""Differences at two steps agree within the first where the loss is smooth; a product further off than the second from
them is wrong. A graph that loses a path is off by about 1."""


def lost(session: Session, closure: Callable[[], object], params: Sequence[Tensor], unused: list[int]) -> list[int]:
    """Which of the parameters without a path in the graph the loss depends on all the same.

    Weights are moved by a hundredth of their size. A loss that was computed without them stays bit for bit the same;
    where the same run does not repeat itself bit for bit, a change must be ten times as large to count.
    """
    before, again = (loss_of(session, closure) for _ in range(2))
    found = []
    for place in unused:
        param = params[place]
        with moved([param]), torch.no_grad():
            size = param.detach().abs().max() if param.numel() else 0.0
            param.add_(0.01 * size + 1e-3)
            after = loss_of(session, closure)
        if abs(after - before) > 10 * abs(again - before):
            found.append(place)
    return found


def loss_of(session: Session, closure: Callable[[], object]) -> float:
    """The loss as a number."""
    with torch.enable_grad():
        return float(scalar(session.run(closure)).detach())


def probe_for(params: Sequence[Tensor]) -> list[Tensor]:
    """Signs times each parameter's own size, so that no parameter hides behind another."""
    signs = philox.rademacher_probes(xp, list(map(full_like, params)), seed=0, step=0)
    sizes = [float(whole(param.detach().abs().mean())) if param.numel() else 0.0 for param in params]
    scaled = [sign * (size or 0.01) for sign, size in zip(signs, sizes, strict=True)]
    return [sharded_like(vector, param) for vector, param in zip(scaled, params, strict=True)]


def wrong_products(
    session: Session, closure: Callable[[], object], params: Sequence[Tensor], vectors: list[Tensor], found: Products
) -> tuple[list[int], list[int]]:
    """Parameters whose product differs from differences of gradients, and those where these tell nothing.

    They tell nothing where two steps disagree (kinks, rounding), and in half precision.
    """
    indices = list(range(len(params)))
    if any(param.dtype.itemsize < 4 or is_split(param) for param in params):
        return [], indices
    differences = Differences(session, closure, params)
    coarse = differences(vectors)
    differences.shrink = 0.5
    fine = differences(vectors)
    wrong, silent = [], []
    for place, (product, first, second) in enumerate(zip(found, coarse, fine, strict=True)):
        if first is None or second is None:
            continue
        noise = noise_of(differences, place, vectors, params)
        size = norm_of(second)
        if norm_of(first - second) > SMOOTH * size + noise:
            silent.append(place)
        elif norm_of(second if product is None else product - second) > WRONG * size + noise:
            wrong.append(place)
    return wrong, silent


def noise_of(differences: Differences, place: int, vectors: list[Tensor], params: Sequence[Tensor]) -> float:
    """What rounding of the gradients alone may make of a difference."""
    grad = differences.gradients[place]
    step = differences.shrink * step_size(params, vectors)
    return 0.0 if grad is None or not step else 100 * torch.finfo(grad.dtype).eps * norm_of(grad) / step


def norm_of(tensor: Tensor) -> float:
    """The Euclidean norm as a number."""
    return float(torch.linalg.vector_norm(tensor.detach()))
