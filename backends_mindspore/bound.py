"""Whether a net still has the parameters that a graph was traced with: one that was replaced would go unnoticed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mindspore import Parameter, nn

from hessiod.core.errors import InvalidState


class Bound:
    """The places of some parameters in Cells.

    >>> import numpy as np, mindspore as ms
    >>> net = nn.Dense(2, 1)
    >>> bound = Bound([net], net.trainable_params())
    >>> bound.check()
    >>> net.weight = Parameter(ms.Tensor(np.ones((1, 2), np.float32)), name="weight")
    >>> bound.check()
    Traceback (most recent call last):
    hessiod.core.errors.InvalidState: parameter 'weight' of Dense was replaced after the TrainStep was built, ...
    """

    def __init__(self, cells: Iterable[Any], params: Iterable[Parameter]) -> None:
        wanted = {id(param) for param in params}
        parts = [part for cell in cells if isinstance(cell, nn.Cell) for _, part in cell.cells_and_names()]
        self.places = [
            (part, name, param) for part in parts for name, param in part._params.items() if id(param) in wanted
        ]

    def check(self) -> None:
        """Raise :class:`InvalidState` for the first parameter that is no longer where it was."""
        for cell, name, param in self.places:
            if cell._params.get(name) is not param:
                raise InvalidState(
                    f"parameter {param.name!r} of {type(cell).__name__} was replaced after the TrainStep was built, "
                    "which would go on moving the old one; load values into it with ms.load_param_into_net, or "
                    "construct a new optimizer and a new TrainStep"
                )
