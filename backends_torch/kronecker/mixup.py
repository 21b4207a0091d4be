"""Running mixup, a part of SP-NGD's recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from hessiod.backends.kronecker import mixup
from hessiod.backends_torch import namespace


class RunningMixup(mixup.RunningMixup):
    """Mix each batch with what came out for the last one: the equation and the arguments are those of
    :class:`hessiod.backends.kronecker.mixup.RunningMixup`.

    >>> import torch
    >>> mix = RunningMixup(alpha=1.0, seed=0)
    >>> x, y = mix(torch.zeros(2, 3), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> x, y = mix(torch.ones(2, 3), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    >>> bool(0 < y[0, 1] < 1), torch.allclose(x[:, 0], y[:, 1])
    (True, True)
    """

    xp: ClassVar[Any] = namespace
    one_hot: ClassVar[str] = "torch.nn.functional.one_hot"

    def detached(self, array: Tensor) -> Tensor:
        """The array outside every graph of derivatives."""
        return array.detach()
