"""The memory that compiled graphs read and write: what MindSpore puts elsewhere is brought back into it.

``set_data``, ``load_param_into_net`` and ``p[...] =`` give a parameter another tensor. A graph that has run holds the
old one, and a step on the host writes to the new one: gradients would be of weights that nobody moves.
"""

from __future__ import annotations

from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from hessiod.core.errors import InvalidState


class Memory:
    """Where some parameters are, on the CPU.

    >>> weight = Parameter(Tensor(np.zeros(2, np.float32)), name="weight")
    >>> memory = Memory([weight])
    >>> memory.reclaim()  # nothing is known yet
    >>> memory.hold()
    >>> before = weight.asnumpy()
    >>> _ = weight.set_data(Tensor(np.ones(2, np.float32)))
    >>> memory.reclaim()
    >>> before, np.shares_memory(before, weight.asnumpy())
    (array([1., 1.], dtype=float32), True)
    """

    def __init__(self, params: Iterable[Parameter]) -> None:
        self.params = list({id(param): param for param in params}.values())
        self.places, self.views = list[int](), list[np.ndarray]()

    def hold(self) -> None:
        """Take what is there for what graphs have seen; only the first time."""
        if not self.places and ms.get_context("device_target") == "CPU":
            self.views = [param.asnumpy() for param in self.params]
            self.places = self._now()

    def reclaim(self) -> None:
        """Bring parameters back that were given other tensors, with the values of those."""
        if not self.places or (now := self._now()) == self.places:
            return
        for place, (param, there) in enumerate(zip(self.params, now, strict=True)):
            if there != self.places[place]:
                self._bring_back(param, place)

    def _now(self) -> list[int]:
        return [param.data_ptr() for param in self.params]

    def _bring_back(self, param: Parameter, place: int) -> None:
        view, given = self.views[place], param.asnumpy()
        if (view.shape, view.dtype) != (given.shape, given.dtype) or view.ctypes.data != self.places[place]:
            raise InvalidState(
                f"parameter {param.name!r} was given other data after the first step (found {given.dtype} "
                f"{given.shape}, expected {view.dtype} {view.shape}), which compiled graphs do not see; construct a "
                "new optimizer and a new TrainStep"
            )
        view[...] = given
        param.set_data(Tensor.from_numpy(view))
