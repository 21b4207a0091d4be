"""Which statistics the coming step wants, worked out once a step and setting: every hook of every layer asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hessiod.backends_torch.kronecker.discover import AnyLayer

Names = tuple[str, ...]


class Due:
    """The layers of which the coming step wants statistics, and which ("a", "g", or "f").

    It holds until :meth:`forget`, which a step and a load call; after :meth:`doubt` it holds if the ``settings`` by
    which it was found are what they were.
    """

    def __init__(self, wanted: Callable[[], Mapping[AnyLayer, Names]], settings: Callable[[], Any]) -> None:
        self.wanted, self.settings = wanted, settings
        self.known: Mapping[AnyLayer, Names] | None = None
        self.doubted, self.under = False, None

    def __call__(self) -> Mapping[AnyLayer, Names]:
        """By layer; those that want none are left out."""
        if self.doubted and self.settings() != self.under:
            self.known = None
        if self.known is None:
            self.known, self.under = self.wanted(), self.settings()
        self.doubted = False
        return self.known

    def doubt(self) -> None:
        """Settings may change before the next asks."""
        self.doubted = True

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
