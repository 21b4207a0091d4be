"""Which statistics the coming step wants, worked out once a step: every hook of every layer asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hessiod.backends_torch.kronecker.discover import AnyLayer

Names = tuple[str, ...]


class Due:
    """The layers of which the coming step wants statistics, and which ("a", "g", or "f").

    It holds until :meth:`forget`, which a step and a load call.
    """

    def __init__(self, wanted: Callable[[], Mapping[AnyLayer, Names]]) -> None:
        self.wanted = wanted
        self.known: Mapping[AnyLayer, Names] | None = None

    def __call__(self) -> Mapping[AnyLayer, Names]:
        """By layer; those that want none are left out."""
        if self.known is None:
            self.known = self.wanted()
        return self.known

    def among(self, moving: Any) -> dict[AnyLayer, Names]:
        """Of the layers that have a parameter among those that move."""
        due = self()
        if not due:
            return {}
        params = set(moving)
        return {layer: names for layer, names in due.items() if not params.isdisjoint(layer.params)}

    def forget(self) -> None:
        """Ask anew the next time."""
        self.known = None
