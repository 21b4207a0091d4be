"""What a network tells about itself, framework-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Model(Protocol):
    """A frozen description of a classifier, from which each framework builds the network natively."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Parameter names and shapes, in the order of the optimizer's parameters; ``[out, in]`` for linear maps."""

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """For each optimizer that may train it, the learning rate and what else differs from the defaults."""

    def start(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation of a parameter's initial values; they are constant where the latter is 0."""
