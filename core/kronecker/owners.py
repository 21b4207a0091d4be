"""Who owns a layer when several processes share the work, and what that costs (Osawa et al., arXiv:2002.06015).

A step of SP-NGD has five stages: forward, with A; reduce A to the owners of layers, while backward runs; reduce G and
gradients to them; the owner inverts and moves its layers' weights; weights go from the owners to all. K-FAC's other
placements are its two ends: every process owns everything, or one process does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hessiod.core.errors import InvalidArgument

PLACEMENTS = ("owner", "every", "one")
WORD = 4
"""Bytes of a float32."""


def triangle(size: int) -> int:
    """Entries of a symmetric matrix that are sent: the upper triangle.

    >>> triangle(4)
    10
    """
    return size * (size + 1) // 2


def assign(costs: Sequence[float], ranks: int) -> list[int]:
    """The owner of each unit of work: the dearest first, each to the rank with the least so far.

    Within 4/3 of the best balance there is (Graham, 1969).

    >>> assign([5.0, 3.0, 3.0, 2.0, 1.0], 2)
    [0, 1, 1, 0, 1]
    """
    if ranks < 1:
        raise InvalidArgument(f"ranks: found {ranks!r}, expected a whole number >= 1")
    owners, loads = [0] * len(costs), [0.0] * ranks
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        rank = min(range(ranks), key=lambda rank: (loads[rank], rank))
        owners = [rank if other == place else owner for other, owner in enumerate(owners)]
        loads = [load + costs[place] if other == rank else load for other, load in enumerate(loads)]
    return owners


def inverse_cost(out: int, size: int, lead: int = 1, block: int | None = None) -> float:
    """Multiply-adds of inverting a layer's factors, to a constant: the cubes of their sizes, or of their blocks'."""

    def cubes(d: int) -> float:
        whole, rest = (d // block, d % block) if block else (1, 0)
        return float(whole * (block or d) ** 3 + rest**3)

    return lead * (cubes(out) + cubes(size))


@dataclass(frozen=True)
class LayerSize:
    """A layer's output size, its input size with the bias's column, and how many of them it has (groups)."""

    out: int
    size: int
    lead: int = 1

    @property
    def statistics(self) -> int:
        """Numbers that a refresh sends: two triangles, and the number of rows."""
        return self.lead * (triangle(self.out) + triangle(self.size)) + 1

    @property
    def weights(self) -> int:
        """Numbers that every step sends, as gradients and again as weights."""
        return self.lead * self.out * self.size

    @property
    def state(self) -> int:
        """Numbers that its owner holds: both factors, both inverses, momentum."""
        return self.lead * (2 * (self.out**2 + self.size**2) + self.out * self.size)


def step_bytes(layers: Sequence[LayerSize], refreshed: float = 1.0, placement: str = "owner") -> float:
    """Bytes that enter collectives in a step: gradients, a share ``refreshed`` of the statistics, and weights.

    With "every" the weights are not sent. A ring moves each of those bytes past every link about once a direction,
    whatever the number of ranks.

    >>> step_bytes([LayerSize(2, 3)])          # 4 * (6 gradients + 3 + 6 + 1 statistics + 6 weights)
    88.0
    """
    weights = sum(layer.weights for layer in layers)
    statistics = sum(layer.statistics for layer in layers)
    return float(WORD) * ((1 if placement == "every" else 2) * weights + refreshed * statistics)


def rank_bytes(layers: Sequence[LayerSize], ranks: int, placement: str = "owner") -> list[int]:
    """Bytes of factors, inverses and momentum on each rank."""
    total = [WORD * layer.state for layer in layers]
    if placement == "every":
        return [sum(total)] * ranks
    costs = [inverse_cost(layer.out, layer.size, layer.lead) for layer in layers]
    owners = assign(costs, ranks) if placement == "owner" else [0] * len(layers)
    return [sum(size for size, owner in zip(total, owners, strict=True) if owner == rank) for rank in range(ranks)]
