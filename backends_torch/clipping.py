"""``clip_grad``: gradients times ``bound / max(bound, their norm)``, where the norm's pass finds NaN besides.

The norm is over all gradients of a step together. Its squares are added in float64, where those of float32 cannot
overflow, in an order that depends on sizes alone; so it is finite exactly if every gradient is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hessiod.backends import kernels
from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch import shards
from hessiod.backends_torch.arrays import Arrays, joined
from hessiod.core import host
from hessiod.core.clipping import clip_factor


def total_norm(given: Sequence[Arrays], wait: bool = True) -> Any:
    """The Euclidean norm of all entries together, NaN or infinite if one of them is.

    Without waiting for the device it is a 0-d float64 tensor, and infinite too if the squares of float64 gradients are.

    >>> total_norm([Arrays([torch.tensor([3.0]), torch.tensor([[4.0]])])])
    5.0
    """
    tensors = [tensor for arrays in given for tensor in arrays.tensors]
    if not wait:
        return norm_on_device(tensors)
    if kernels.available() and all(arrays.plain for arrays in given):
        norm = sqrt(kernels.squares(*joined(given), torch.get_num_threads()))
    else:
        norm = float(norm_on_device(tensors))
    if isfinite(norm) or all(tensor.dtype != torch.float64 for tensor in tensors):
        return norm
    # Squares of float64 may not fit it; those of entries times 2^-600 do.
    return 2.0**600 * float(norm_on_device([tensor.double() * 2.0**-600 for tensor in tensors]))


def norm_on_device(tensors: Sequence[Tensor]) -> Tensor:
    """The norm as a 0-d float64 tensor, without waiting for it."""
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(shards.split_of(tensor), []).append(tensor)
    found = [squares_of(members, split) for split, members in kinds.items()]
    return torch.stack([squares.to(found[0].device) for squares in found]).sum().sqrt()


def squares_of(tensors: Sequence[Tensor], split: Any) -> Tensor:
    """The sum of squares of tensors that are split alike: added up over the processes that hold different shards."""
    own = [shards.local(shards.settled(tensor)) for tensor in tensors]
    filled = [tensor for tensor in own if tensor.numel()]
    norms = [norm.to(own[0].device) for norm in torch._foreach_norm(filled, dtype=torch.float64)] if filled else []
    squares = torch.stack(norms).square().sum() if norms else torch.zeros((), dtype=torch.float64, device=own[0].device)
    for group in shards.groups_of(split):
        dist.all_reduce(squares, group=group)
    return squares


def factor(bound: float, norm: Any) -> Any:
    """What gradients are multiplied by; 1 where the norm is within the bound.

    >>> factor(1.0, 0.5), factor(1.0, 4.0)
    (1.0, 0.25)
    """
    if isinstance(norm, Tensor):
        return clip_factor(xp, torch.full_like(norm, bound), norm)
    return clip_factor(host, bound, norm)
