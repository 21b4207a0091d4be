"""Who inverts which layer, and what processes send each other about it, on the host.

Statistics are added up over all processes, those that are due and as triangles, in one AllReduce: MindSpore has no
ReduceScatter on the CPU, and a policy wants every statistic on every process. Each layer is inverted by its owner, who
sends the triangles of its inverses to all. So all have the same bits, on unlike processors too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from mindspore import Tensor

from hessiod.backends_mindspore.kronecker.layers import Layer
from hessiod.backends_mindspore.kronecker.sums import Sums
from hessiod.backends_mindspore.parallel import Processes
from hessiod.core.errors import InvalidArgument, NonFinite
from hessiod.core.kronecker.owners import PLACEMENTS, assign, triangle

Pair = tuple[Any, Any]
Invert = Callable[[Layer, Any, Any], dict[str, Any]]


def check_placement(placement: Any) -> None:
    """Raise :class:`InvalidArgument` for a placement that there is not."""
    if placement not in PLACEMENTS:
        raise InvalidArgument(f"placement: found {placement!r}, expected one of {', '.join(PLACEMENTS)}")


class Cluster:
    """The processes of a step. ``bytes_sent`` counts what enters the host's collectives.

    ``placement``: "owner" spreads the inverses by their cost, with "every" each process has all of them to do, with
    "one" process 0 has.
    """

    def __init__(self, processes: Processes, placement: str, layers: Sequence[Layer], block: int | None) -> None:
        self.processes, self.placement, self.block, self.bytes_sent = processes, placement, block, 0
        costs = [layer.inverse_cost(block) for layer in layers]
        owners = assign(costs, processes.size if placement == "owner" else 1)
        self.owner_of = dict(zip(layers, owners, strict=True))

    def mine(self, layer: Layer) -> bool:
        """Whether this process inverts the layer."""
        return self.placement == "every" or self.owner_of[layer] == self.processes.rank

    def summed(self, row: np.ndarray) -> np.ndarray:
        """The sums of ``[n]`` over all processes, in float32."""
        if self.processes.size == 1:
            return row
        row = row.astype(np.float32)
        self.bytes_sent += row.nbytes
        return self.processes.all_reduce(Tensor(row)).asnumpy()

    def mean(self, numbers: Sequence[float]) -> list[float]:
        """The means of some numbers over all processes."""
        return (self.summed(np.array(numbers)) / self.processes.size).tolist()

    def share(self, sums: Sums) -> None:
        """Make the sums of this process those of all."""
        if self.processes.size == 1:
            return
        places = [(parts, name) for parts in sums.found.values() for name in parts]
        arrays = [np.asarray(parts[name]) for parts, name in places]
        matrices = [name in ("a", "g") for _, name in places]
        rows = [packed(array) if matrix else array.reshape(-1) for array, matrix in zip(arrays, matrices, strict=True)]
        found = split(self.summed(np.concatenate([np.array([sums.targets]), *rows])), [1, *map(len, rows)])
        sums.targets = float(found[0][0])
        for (parts, name), array, row, matrix in zip(places, arrays, found[1:], matrices, strict=True):
            whole = unpacked(row, array.shape) if matrix else row.reshape(array.shape)
            parts[name] = whole.astype(array.dtype)

    def inverses(self, due: Mapping[Layer, Pair], invert: Invert) -> dict[Layer, dict[str, Any]]:
        """What ``invert`` makes of the factors of each layer in ``due``, from its owner; raises on all or on none."""
        found: dict[Layer, dict[str, Any]] = {}
        failed: NonFinite | None = None
        try:
            found = {layer: invert(layer, *pair) for layer, pair in due.items() if self.mine(layer)}
        except NonFinite as error:
            failed = error
        if due and self.summed(np.array([failed is not None], np.float32))[0] and failed is None:
            failed = NonFinite("the factors of a layer have no inverse, on a process whose message says which one")
        if failed is not None:
            raise failed
        if self.processes.size > 1 and self.placement != "every":
            found = self._broadcast(found, due)
        return found

    def _broadcast(
        self, found: Mapping[Layer, Mapping[str, Any]], due: Mapping[Layer, Pair]
    ) -> dict[Layer, dict[str, Any]]:
        """Everybody's inverses, each from its layer's owner; he takes his own from the triangles too."""
        every: dict[Layer, dict[str, Any]] = {}
        for owner in sorted({self.owner_of[layer] for layer in due}):
            members = [layer for layer in due if self.owner_of[layer] == owner]
            shapes = [shape for layer in members for shape in inverse_shapes(layer, self.block)]
            rows = [packed(array) for layer in members if layer in found for array in arrays_of(found[layer])]
            lengths = [packed_size(shape) for shape in shapes]
            row = np.concatenate(rows) if rows else np.zeros(sum(lengths))
            pieces = iter(zip(split(self._sent(row, owner), lengths), shapes, strict=True))
            for layer in members:
                every[layer] = {
                    f"inverse_{name}": [unpacked(*next(pieces)).astype(layer.dtype) for _ in parts]
                    for name, parts in layer.inverse_shapes(self.block).items()
                }
                every[layer]["damping"] = float(next(pieces)[0].astype(np.uint16).view(np.float64)[0])
        return every

    def _sent(self, row: np.ndarray, owner: int) -> np.ndarray:
        """``[n]`` of the owner, on all processes."""
        row = row.astype(np.float32)
        self.bytes_sent += row.nbytes
        return self.processes.sent(Tensor(row), owner).asnumpy()


def inverse_shapes(layer: Layer, block: int | None) -> list[tuple[int, ...]]:
    """The shapes of the blocks of a layer's inverses, and of the damping that they have: its bits, in four numbers."""
    return [*(shape for shapes in layer.inverse_shapes(block).values() for shape in shapes), (4,)]


def arrays_of(inverses: Mapping[str, Any]) -> list[np.ndarray]:
    """Their arrays in the same order."""
    return [*inverses["inverse_a"], *inverses["inverse_g"], np.array([inverses["damping"]]).view(np.uint16)]


def symmetric(shape: tuple[int, ...]) -> bool:
    """Whether a factor or an inverse of this shape is a symmetric matrix, or several, and no diagonal."""
    return len(shape) > 1 and shape[-1] == shape[-2]


def packed_size(shape: tuple[int, ...]) -> int:
    """How many numbers are sent of an array."""
    return prod(shape[:-2]) * triangle(shape[-1]) if symmetric(shape) else prod(shape)


def packed(array: np.ndarray) -> np.ndarray:
    """The upper triangles of symmetric matrices in one row; anything else flattened."""
    if not symmetric(array.shape):
        return array.reshape(-1)
    rows, columns = np.triu_indices(array.shape[-1])
    return array[..., rows, columns].reshape(-1)


def unpacked(row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The symmetric matrices back from their triangles.

    >>> unpacked(packed(np.array([[1.0, 2.0], [2.0, 3.0]])), (2, 2))
    array([[1., 2.],
           [2., 3.]])
    """
    if not symmetric(shape):
        return row.reshape(shape)
    rows, columns = np.triu_indices(shape[-1])
    whole = np.zeros(shape, row.dtype)
    whole[..., rows, columns] = whole[..., columns, rows] = row.reshape(*shape[:-2], -1)
    return whole


def split(row: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    """A row in pieces."""
    return np.split(row, np.cumsum(lengths)[:-1])
