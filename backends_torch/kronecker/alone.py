"""One process, as the optimizer sees processes: all layers are its own, and nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.sums import Statistics
from hessiod.core.errors import InvalidState

T = TypeVar("T")


class Alone:
    """What :class:`~hessiod.backends_torch.kronecker.distributed.Cluster` is for several."""

    spread = False
    overlap = False
    draws: Any = None
    """The process group over which sampled targets are numbered on."""

    def __init__(self, layers: list[AnyLayer]) -> None:
        self.own = layers

    def mine(self, what: Any) -> bool:
        """Whether this process works on a layer or moves a parameter."""
        return True

    def agreed(self, work: Callable[[], T | None]) -> T | None:
        """What some work brings, which may be None for a step that is to be passed over."""
        return work()

    def total(self, number: float) -> float:
        """A number's sum over all processes."""
        return number

    def largest(self, number: float) -> float:
        """The largest of all processes' numbers."""
        return number

    def mean(self, number: float) -> float:
        """The mean of all processes' numbers."""
        return number

    def average_gradients(self, grads: Mapping[Tensor, Tensor]) -> Mapping[Tensor, Tensor]:
        """The gradients of the whole batch."""
        return grads

    def statistics(self, sums: Any, wanted: Mapping[AnyLayer, tuple[str, ...]], loss_gradient: float) -> Statistics:
        """The statistics that are wanted."""
        if wanted and sums.number == 0:
            raise InvalidState("update_curvature: every target is ignored; skip batches that hold only padding")
        return sums.statistics(wanted, loss_gradient)

    def share_numbers(self, fresh: Mapping[AnyLayer, Mapping[str, Any]], groups: list[dict[str, Any]]) -> None:
        """Tell the others when this process's layers are due."""

    def share_weights(self, params: list[Tensor]) -> None:
        """Send every parameter from its owner to all."""

    def forget(self) -> None:
        """Drop what is under way."""
