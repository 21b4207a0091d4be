"""Data parallel training: every process has its own batch, and what they found is added up before anything moves.

MindSpore's collectives are called within the graph of a step, one AllReduce for everything that the step needs: its
calls take milliseconds on the CPU whatever their size. That also leaves the processes no order to disagree about.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, context, nn, ops
from mindspore.communication import get_group_size, get_rank
from mindspore.communication.management import GlobalComm

from hessiod.backends_mindspore.traced import each, pairs, size_of
from hessiod.core.errors import InvalidArgument, InvalidState


class Alone(nn.Cell):
    """One process."""

    rank, size = 0, 1

    def summed(self, arrays):
        """The arrays as they are."""
        return arrays

    def place_of(self, count):
        """Nobody's targets come before this process's."""
        return 0

    def check_dtypes(self, parameters: Sequence[Parameter]) -> None:
        """Every dtype will do."""

    def check_equal(self, parameters: Sequence[Parameter]) -> None:
        """Nothing to compare with."""


def flat_in_float32(array):
    """All entries in one row."""
    return ops.reshape(ops.cast(array, ms.float32), (-1,))


def shaped_like(array, like):
    """The entries in another array's shape."""
    return ops.reshape(array, like.shape)


class DataParallel(nn.Cell):
    """All processes that MindSpore's ``init`` brought together."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.rank, self.size = get_rank(), get_group_size()
        self.all_reduce, self.all_gather = ops.AllReduce(), ops.AllGather()
        self.high, self.low = Tensor([1.0, 0.0], ms.float32), Tensor([0.0, 1.0], ms.float32)
        self.before = Tensor(np.arange(self.size)[:, None] < self.rank, ms.float32)

    def summed(self, arrays):
        """The sums over all processes, in float32 and the same bits on each; in the graph of a step."""
        flat = ops.concat(each(flat_in_float32, arrays))
        return pairs(shaped_like, ops.split(self.all_reduce(flat), each(size_of, arrays)), arrays)

    def place_of(self, count):
        """Where this process's ``count`` targets begin among those of all, in the order of ranks; in a graph.

        AllGather takes float32: a count goes in two halves, which are exact, and so are their sums.
        """
        halves = self.high * (count // 65536) + self.low * (count % 65536)
        counts = ops.reshape(self.all_gather(halves), (self.size, 2))
        sums = ops.cast((counts * self.before).sum(0), ms.int64)
        return sums[0] * 65536 + sums[1]

    def sent(self, row: Tensor, owner: int) -> Tensor:
        """A tensor of one process, on all of them; those of the others must have its shape. On the host."""
        return ops.Broadcast(owner)((row,))[0]

    def check_dtypes(self, parameters: Sequence[Parameter]) -> None:
        """Raise for parameters whose gradients would be rounded on their way."""
        for param in parameters:
            if param.dtype == ms.float64:
                raise InvalidArgument(
                    f"parameter {param.name!r}: found float64 on {self.size} processes, expected float32 or float16; "
                    "MindSpore's AllReduce does not take float64, and its AllGather rounds it. Cast the net"
                )

    def check_equal(self, parameters: Sequence[Parameter]) -> None:
        """Raise, on every process, for parameters that are not the same bits on all of them; on the host."""
        codes = np.array([zlib.crc32(param.asnumpy().tobytes()) for param in parameters])
        halves = np.concatenate([codes >> 16, codes & 0xFFFF]).astype(np.float32)  # exact
        found = self.all_gather(Tensor(halves)).asnumpy().reshape(self.size, -1)
        unlike = np.argwhere(found != found[0])
        if len(unlike):
            rank, place = int(unlike[0][0]), int(unlike[0][1]) % len(parameters)
            raise InvalidState(
                f"parameter {parameters[place].name!r}: found other values on process {rank} than on process 0, "
                "expected the same on all; call ms.set_seed before the net is made, or load one checkpoint on every "
                "process"
            )


Processes = Alone | DataParallel


def processes_of(data_parallel: bool | None) -> Processes:
    """What ``TrainStep(data_parallel=...)`` means; None is what ``ms.set_auto_parallel_context`` says."""
    mode = context.get_auto_parallel_context("parallel_mode")
    if data_parallel not in (None, True, False):
        raise InvalidArgument(f"data_parallel: found {data_parallel!r}, expected True, False or None")
    if mode not in ("stand_alone", "data_parallel"):
        raise InvalidArgument(
            f"parallel_mode: found {mode!r}, expected 'data_parallel' or 'stand_alone'; sharded parameters are not "
            "supported: call ms.set_auto_parallel_context(parallel_mode='data_parallel', gradients_mean=True)"
        )
    if data_parallel is None:
        data_parallel = mode == "data_parallel"
        if data_parallel:
            check_mean()
        elif GlobalComm.INITED and get_group_size() > 1:
            raise InvalidArgument(
                f"parallel_mode: found 'stand_alone' in {get_group_size()} processes, which would train a net each; "
                "call ms.set_auto_parallel_context(parallel_mode='data_parallel', gradients_mean=True) first, or give "
                "TrainStep data_parallel=True, or False for a net each"
            )
    if not data_parallel:
        return Alone()
    if not GlobalComm.INITED:
        raise InvalidArgument(
            "data_parallel: found no processes; start the script with msrun and call mindspore.communication.init()"
        )
    return DataParallel() if get_group_size() > 1 else Alone()


def check_mean() -> None:
    """Raise unless gradients are averaged: their sum is of another loss, and the curvature would not be its."""
    if not context.get_auto_parallel_context("gradients_mean"):
        raise InvalidArgument(
            "gradients_mean: found False, expected True: the mean over the processes is the gradient of their common "
            "batch's loss; call ms.set_auto_parallel_context(parallel_mode='data_parallel', gradients_mean=True)"
        )
