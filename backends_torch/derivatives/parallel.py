"""Models on several processes.

DistributedDataParallel synchronises gradients only in ``.backward()``, and its forward prepares for one. Here its
module runs alone, and products are averaged over its processes afterwards. ``fully_shard`` (FSDP2) computes with
unsharded copies that autograd does not connect to the sharded parameters: gradients reach these only by
``.backward()``, which averages them over the mesh.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.weak import WeakIdKeyDictionary

from hessiod.backends_torch.shards import is_split
from hessiod.core.errors import InvalidState

_WRAPPERS: WeakKeyDictionary[nn.Module, None] = WeakKeyDictionary()
"""Every DistributedDataParallel module, once :func:`wrappers_of` began to note them."""

_LOOKED_FOR: Any = WeakIdKeyDictionary()
"""Parameters for which all objects were looked through, which takes a tenth of a second."""

_MESHES: Any = WeakIdKeyDictionary()
"""What :func:`data_mesh` found, by parameter. It holds for good: ``fully_shard`` makes new parameters."""


@contextmanager
def unwrapped(seen: list[nn.Module]) -> Iterator[None]:
    """Let every DistributedDataParallel run its module alone, and note it in ``seen``."""

    def forward(self: Any, *inputs: Any, **kwargs: Any) -> Any:
        if self.mixed_precision is not None:
            raise InvalidState(
                "curvature: found DistributedDataParallel with mixed_precision=, which replaces weights while it runs; "
                "use torch.autocast in its place"
            )
        if self not in seen:
            seen.append(self)
        return self.module(*inputs, **kwargs)

    with patch.object(DistributedDataParallel, "forward", forward):
        yield


def is_sharded(module: nn.Module) -> bool:
    """Whether ``fully_shard`` took the module over."""
    return issubclass(type(module), fsdp_modules())


def reshard(modules: Iterable[nn.Module]) -> None:
    """Drop gathered copies of weights: a forward without a backward leaves some, and the next would take them."""
    for module in modules:
        if is_sharded(module):
            module.reshard()  # type: ignore[operator]


def several_processes() -> bool:
    """Whether there are other processes at all."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def groups_of(params: Sequence[Tensor], wrappers: Sequence[nn.Module]) -> list[Any]:
    """For each parameter the group of processes over which it is replicated, or None."""
    groups = {}
    for wrapper in wrappers:
        for param in wrapper.module.parameters():  # type: ignore[union-attr]
            groups[id(param)] = wrapper.process_group
    return [groups.get(id(param)) for param in params]


def wrappers_of(params: Sequence[Tensor]) -> list[nn.Module]:
    """The DistributedDataParallel modules that hold some of the parameters; they leave no mark on them.

    All objects are looked through for new parameters. A wrapper that comes later is noted when it takes its module.
    """
    if not several_processes():
        return []
    if params[0] not in _LOOKED_FOR:
        if not _LOOKED_FOR:
            register_module_module_registration_hook(_note_wrapper)
        _WRAPPERS.update(dict.fromkeys(living(DistributedDataParallel)))
        _LOOKED_FOR[params[0]] = True
    ours = {id(param) for param in params}
    return [w for w in _WRAPPERS if any(id(param) in ours for param in w.module.parameters())]  # type: ignore[union-attr]


def _note_wrapper(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
    if isinstance(module, DistributedDataParallel):
        _WRAPPERS[module] = None


def living(kinds: Any) -> list[Any]:
    """All objects of these classes; proxies whose referents are gone are not asked."""
    return [found for found in gc.get_objects() if issubclass(type(found), kinds)]


def group_of(params: Sequence[Tensor], wrappers: Sequence[nn.Module]) -> Any:
    """The one group over which the batch is spread: DistributedDataParallel's, ``fully_shard``'s mesh, or None.

    Tensor parallelism alone is None: all its processes see the same batch.
    """
    if any(map(is_split, params)):
        return data_mesh(params)
    return next((group for group in groups_of(params, wrappers) if group is not None), None)


def fsdp_modules() -> tuple[type, ...]:
    """The class of modules under ``fully_shard``; none where nobody imported it, which takes a second."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return () if fsdp is None else (fsdp.FSDPModule,)


def data_mesh(params: Iterable[Tensor]) -> Any:
    """The mesh over which ``fully_shard`` spreads the batch (and, in one dimension or both, the weights), or None."""
    params = list(params)
    if not all(map(_MESHES.__contains__, params)):
        meshes = {
            id(param.sharded_param): part.mesh_info.mesh
            for module in living(fsdp_modules())
            for part in module._get_fsdp_state()._fsdp_param_groups
            for param in part.fsdp_params
        }
        _MESHES.update({param: meshes.get(id(param)) for param in params})
    return next((_MESHES[param] for param in params if _MESHES[param] is not None), None)


def rank_and_size(group: Any) -> tuple[int, int]:
    """The number of this process among those of a group or mesh, and their count."""
    if group is None:
        return 0, 1
    if hasattr(group, "get_coordinate"):  # a mesh
        rank = 0
        for length, place in zip(group.shape, group.get_coordinate(), strict=True):
            rank = rank * length + place
        return rank, group.size()
    return dist.get_rank(group), dist.get_world_size(group)


def summed(tensor: Tensor, group: Any) -> Tensor:
    """The sum over the processes of a group or mesh, in place."""
    if group is not None:
        parts = group.get_all_groups() if hasattr(group, "get_coordinate") else [group]
        for part in parts:
            dist.all_reduce(tensor, group=part)
    return tensor


def place_of(count: int, group: Any, device: torch.device) -> int:
    """How many there are on the processes before this one, each of which says how many it has."""
    rank, size = rank_and_size(group)
    if size == 1:
        return 0
    counts = torch.zeros(size, dtype=torch.int64, device=device)
    counts[rank] = count
    return int(summed(counts, group)[:rank].sum())


def averaged(tensors: Sequence[Tensor], groups: Sequence[Any]) -> list[Tensor]:
    """Each tensor's mean over its group: the derivative of the mean loss."""
    found = []
    for tensor, group in zip(tensors, groups, strict=True):
        total = tensor if group is None else summed(tensor.contiguous(), group)
        found.append(total if group is None else total / dist.get_world_size(group))
    return found


def whole(tensor: Tensor) -> Tensor:
    """A sum or norm of shards as the number that it is."""
    return tensor.full_tensor() if is_split(tensor) else tensor  # type: ignore[attr-defined]


def sharded_like(full: Tensor, like: Tensor) -> Tensor:
    """The part of this process of a tensor that every process has whole."""
    if not is_split(like):
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]


def full_like(param: Tensor) -> Tensor:
    """A tensor of the whole parameter's shape, dtype and device, for probes that do not depend on the sharding."""
    if not is_split(param):
        return param
    return torch.empty(param.shape, dtype=param.dtype, device=param.device)
