"""Running mixup, a part of SP-NGD's recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from mindspore import Tensor, ops

from hessiod.backends.kronecker import mixup
from hessiod.backends_mindspore import namespace


class RunningMixup(mixup.RunningMixup):
    """Mix each batch with what came out for the last one: the equation and the arguments are those of
    :class:`hessiod.backends.kronecker.mixup.RunningMixup`.

    >>> import mindspore as ms
    >>> mix = RunningMixup(alpha=1.0, seed=0)
    >>> x, y = mix(ms.ops.zeros((2, 3)), ms.Tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> x, y = mix(ms.ops.ones((2, 3)), ms.Tensor([[0.0, 1.0], [0.0, 1.0]]))
    >>> bool(0 < y[0, 1] < 1), bool(x[0, 0] == y[0, 1])
    (True, True)
    """

    xp: ClassVar[Any] = namespace
    one_hot: ClassVar[str] = "mindspore.ops.one_hot"

    def detached(self, array: Tensor) -> Tensor:
        """The array outside every graph of derivatives."""
        return ops.stop_gradient(array)
