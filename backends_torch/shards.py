"""What this process holds of tensors that are split over several: those of ``fully_shard`` and tensor parallelism."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_split(tensor: Any) -> bool:
    """Whether a tensor is a DTensor. Importing their module takes a second; where nobody has, there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The shard of this process; a plain tensor as it is."""
    return tensor.to_local() if is_split(tensor) else tensor  # type: ignore[attr-defined]


def split_of(tensor: Tensor) -> Any:
    """Over which mesh a tensor is split, and how."""
    return (tensor.device_mesh, tensor.placements) if is_split(tensor) else None  # type: ignore[attr-defined]


def groups_of(split: Any) -> list[Any]:
    """The groups of processes that hold different shards of a tensor that is split so; none for a plain one."""
    if split is None:
        return []
    mesh, placements = split
    # Not is_shard(): of a weight that fully_shard split after tensor parallelism, that is false.
    whole = [placement.is_replicate() or placement.is_partial() for placement in placements]
    return [mesh.get_group(dimension) for dimension, same in enumerate(whole) if not same]


def alike(tensors: Sequence[Tensor]) -> bool:
    """Whether an entry is at the same place of every tensor's shard, and none is a sum that is yet to be taken."""
    splits = list(map(split_of, tensors))
    return all(split == splits[0] for split in splits) and not pending(tensors[0])


def pending(tensor: Tensor) -> bool:
    """Whether the shards of a tensor are yet to be added up."""
    return is_split(tensor) and any(placement.is_partial() for placement in tensor.placements)  # type: ignore[attr-defined]


def settled(tensor: Tensor) -> Tensor:
    """A tensor whose sums are taken: replicated where it was yet to be added up."""
    if not pending(tensor):
        return tensor
    return tensor.redistribute(placements=whole_placements(tensor))  # type: ignore[attr-defined]


def whole_placements(tensor: Any) -> list[Any]:
    """A tensor's placements, with ``Replicate`` for every ``Partial``."""
    from torch.distributed.tensor import Replicate

    return [Replicate() if placement.is_partial() else placement for placement in tensor.placements]


def first_on_any_process(tensors: Sequence[Tensor], first: Callable[[Sequence[Tensor]], int | None]) -> int | None:
    """The first place that ``first`` finds among this process's shards or another's; the same on all of them.

    One small collective for each dimension of each mesh, instead of one for each tensor.
    """
    found = first([local(settled(tensor)) for tensor in tensors])
    meshes = dict.fromkeys(tensor.device_mesh for tensor in tensors if is_split(tensor))  # type: ignore[attr-defined]
    nowhere = len(tensors)
    place = torch.tensor(nowhere if found is None else found, device=local(tensors[0]).device)
    for group in [group for mesh in meshes for group in mesh.get_all_groups()]:
        dist.all_reduce(place, op=dist.ReduceOp.MIN, group=group)
    return None if int(place) == nowhere else int(place)
