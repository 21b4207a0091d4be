"""Kronecker methods on several processes: statistics and gradients to the owners of layers, weights back to all.

Each process runs its own share of the batch through its own copy of the model, without DistributedDataParallel. In
``step`` the sums behind A and G and the gradients are reduced to the rank that owns a layer; it inverts, moves its
weights and sends them to the others. With ``overlap`` the reduction of A begins in backward, layer by layer.

The reduction to owners is one ``reduce`` to each rank, all under way at once: what MPI calls ReduceScatterV.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.sums import Statistics
from hessiod.backends_torch.kronecker.triangles import packed, unpacked
from hessiod.backends_torch.shards import is_split
from hessiod.core.errors import InvalidArgument, InvalidState, NonFinite
from hessiod.core.kronecker.owners import PLACEMENTS, assign

T = TypeVar("T")


def check_alone(process_group: Any) -> None:
    """Refuse several ranks without a process group: each would precondition with its own statistics."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if process_group is None and several:
        raise InvalidState(
            f"process_group: found None among {dist.get_world_size()} ranks, whose weights would drift apart, with "
            "DistributedDataParallel too; pass process_group=True, or False for a model that this rank trains alone"
        )


def check_whole(model: nn.Module) -> None:
    """Refuse weights that are split over processes: a factor needs a layer's whole input and output."""
    split = next((name for name, param in model.named_parameters() if is_split(param)), None)
    if split is not None:
        raise InvalidArgument(
            f"model: found {split} split over processes (fully_shard or tensor parallelism), and Kronecker factors "
            "need whole layers; leave the model as it is and pass process_group=True, which spreads factors, inverses "
            "and momentum over the processes, or use SophiaG or AdamW"
        )


class Cluster:
    """The ranks of a process group, who owns what, and the bytes that they sent.

    ``placement``: "owner" spreads layers by the cost of their inverses, "every" has all of them everywhere, "one" has
    them on rank 0.
    """

    spread = True

    def __init__(
        self, group: Any, placement: str, overlap: bool, layers: list[AnyLayer], params: list[Tensor], block: int | None
    ) -> None:
        if placement not in PLACEMENTS:
            raise InvalidArgument(f"placement: found {placement!r}, expected one of {', '.join(PLACEMENTS)}")
        if not dist.is_initialized():
            raise InvalidState("process_group: torch.distributed is not initialized; call init_process_group first")
        self.group, self.placement, self.overlap = group, placement, overlap
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.layers, self.params = layers, params
        self.bytes_sent = 0
        self._under_way: dict[AnyLayer, tuple[Any, Any]] = {}
        self.owner_of = self._assigned(block)
        self.own = [layer for layer in layers if self.mine(layer)]
        self.draws = group or dist.group.WORLD

    def _assigned(self, block: int | None) -> dict[Any, int]:
        """The owner of each layer and of each parameter; layers that share a parameter have one owner."""
        units: list[list[AnyLayer]] = []
        for layer in self.layers:
            joined = [unit for unit in units if any(set(layer.params) & set(other.params) for other in unit)]
            apart = [unit for unit in units if not any(unit is other for other in joined)]
            units = [*apart, [*(other for unit in joined for other in unit), layer]]
        costs = [sum(layer.inverse_cost(block) for layer in unit) for unit in units]
        ranks = assign(costs, self.size if self.placement == "owner" else 1)
        found: dict[Any, int] = {}
        for unit, rank in zip(units, ranks, strict=True):
            for layer in unit:
                found[layer] = rank
                found |= dict.fromkeys(layer.params, rank)
        left = [param for param in self.params if param not in found]
        spread = assign([float(param.numel()) for param in left], self.size if self.placement == "owner" else 1)
        return found | dict(zip(left, spread, strict=True))

    def mine(self, what: Any) -> bool:
        """Whether this rank works on a layer or moves a parameter."""
        return self.placement == "every" or self.owner_of[what] == self.rank

    # Collectives

    def _reduce(self, row: Tensor, owner: int) -> Any:
        self.bytes_sent += row.numel() * row.element_size()
        if self.placement == "every":
            return dist.all_reduce(row, group=self.group, async_op=True)
        target = owner if self.group is None else dist.get_global_rank(self.group, owner)
        return dist.reduce(row, target, group=self.group, async_op=True)

    def _over_ranks(self, number: Tensor, op: Any) -> Tensor:
        number = number.to(self.params[0].device)  # NCCL takes no other
        dist.all_reduce(number, op=op, group=self.group)
        return number

    def _sum(self, number: float) -> float:
        return float(self._over_ranks(torch.tensor(number, dtype=torch.float64), dist.ReduceOp.SUM))

    def total(self, number: float) -> float:
        """A number's sum over the ranks that share the work out."""
        return number if self.placement == "every" else self._sum(number)

    def largest(self, number: float) -> float:
        """The largest of all ranks' numbers."""
        return float(self._over_ranks(torch.tensor(number), dist.ReduceOp.MAX))

    def mean(self, number: float) -> float:
        """The mean of all ranks' numbers."""
        return self._sum(number) / self.size

    def agreed(self, work: Callable[[], T | None]) -> T | None:
        """What some work brings if it brings something on all ranks; an error on one is an error on all."""
        found, error = None, None
        try:
            found = work()
        except NonFinite as raised:
            error = raised
        worst = self.largest(0.0 if found is not None else 1.0 if error is None else 2.0)
        if error is not None:
            raise error
        if worst == 2:
            raise NonFinite("the step was refused on another rank, whose message says why; nothing was changed")
        return found if worst == 0 else None

    def average_gradients(self, grads: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """The mean over ranks of the gradients that this rank needs."""
        waiting = []
        for owner, members in self._by_owner(grads).items():
            row = torch.cat([grads[param].reshape(-1) for param in members])
            waiting.append((owner, members, row, self._reduce(row, owner)))
        found: dict[Tensor, Tensor] = {}
        for owner, members, row, work in waiting:
            work.wait()
            if self.placement == "every" or owner == self.rank:
                pieces = (row * (1.0 / self.size)).split([param.numel() for param in members])
                found |= {param: piece.view(param.shape) for param, piece in zip(members, pieces, strict=True)}
        return found

    def _by_owner(self, params: Iterable[Tensor]) -> dict[int, list[Tensor]]:
        found: dict[int, list[Tensor]] = {}
        for param in params:
            found.setdefault(0 if self.placement == "every" else self.owner_of[param], []).append(param)
        return found

    def start(self, layer: AnyLayer, total: Tensor, rows: int) -> None:
        """Begin to reduce a layer's inputs, in backward."""
        if layer in self._under_way:
            raise InvalidState(
                f"layer {layer.name} was used twice before a step, and overlap=True sends its inputs the first time; "
                "for shared layers and gradient accumulation construct the optimizer with overlap=False"
            )
        row = torch.cat([packed("a", total), total.new_tensor([float(rows)])])
        self._under_way[layer] = row, self._reduce(row, self.owner_of[layer])

    def statistics(self, sums: Any, wanted: Mapping[AnyLayer, tuple[str, ...]], loss_gradient: float) -> Statistics:
        """The statistics of this rank's layers over the whole batch."""
        if not wanted:
            return Statistics()
        waiting: dict[AnyLayer, tuple[Any, Any]] = {}
        for layer in wanted:
            if "a" in wanted[layer] and layer not in self._under_way:
                self.start(layer, *sums.inputs[layer])
            if layer.statistics[-1] in wanted[layer]:
                # Gradients of the sum of the losses: ranks may average over different numbers of targets.
                row = packed(layer.statistics[-1], sums.outputs[layer]) * (1.0 / loss_gradient**2)
                waiting[layer] = row, self._reduce(row, self.owner_of[layer])
        targets = self._sum(sums.number)
        found, nothing = Statistics(), (None, None)
        for layer in wanted:
            inputs, earlier = self._under_way.pop(layer, nothing)
            row, work = waiting.get(layer, nothing)
            for one in (earlier, work):
                if one is not None:
                    one.wait()
            if self.mine(layer):
                found[layer] = self._unpacked(layer, inputs, row, targets)
        return found

    def _unpacked(
        self, layer: AnyLayer, inputs: Tensor | None, row: Tensor | None, targets: float
    ) -> dict[str, Tensor]:
        shapes, name, parts = layer.factor_shapes(), layer.statistics[-1], dict[str, Tensor]()
        if inputs is not None:
            parts["a"] = unpacked("a", inputs[:-1], shapes["a"]) / inputs[-1].clamp(min=1.0)
        if row is not None:
            parts[name] = unpacked(name, row, shapes[name]) * (1.0 / targets)
        return parts

    def share_numbers(self, fresh: Mapping[AnyLayer, Mapping[str, Any]], groups: list[dict[str, Any]]) -> None:
        """Tell the other ranks when this rank's layers are due; the groups keep what all of them say."""
        shared = {
            layer.name: {key: value for key, value in new.items() if isinstance(value, int | float | tuple)}
            for layer, new in fresh.items()
        }
        if self.placement != "every":
            every: list[Any] = [None] * self.size
            dist.all_gather_object(every, shared, group=self.group)
            shared = {name: value for one in every for name, value in one.items()}
        known = groups[0]["numbers"]
        merged = {name: {**known.get(name, {}), **shared.get(name, {})} for name in [*known, *shared]}
        for group in groups:
            group["numbers"] = merged

    def share_weights(self, params: Iterable[Tensor]) -> None:
        """Send every parameter from its owner to all."""
        if self.placement == "every":
            return
        waiting = []
        for owner, members in self._by_owner(params).items():
            row = torch.cat([param.detach().reshape(-1) for param in members])
            self.bytes_sent += row.numel() * row.element_size()
            source = owner if self.group is None else dist.get_global_rank(self.group, owner)
            waiting.append((members, row, dist.broadcast(row, source, group=self.group, async_op=True)))
        for members, row, work in waiting:
            work.wait()
            for param, piece in zip(members, row.split([param.numel() for param in members]), strict=True):
                if not self.mine(param):
                    param.copy_(piece.view(param.shape))

    def forget(self) -> None:
        """Wait for what is under way, and drop it."""
        for _, work in self._under_way.values():
            work.wait()
        self._under_way = {}
