"""What ``clip_grad`` means: a function of the gradients, traced into a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.traced import each, times
from hessiod.core.clipping import check_clip_grad, clip_factor


def clipper(clip_grad: Any) -> Callable[[Any], Any]:
    """The function of the gradients that ``clip_grad`` means."""
    if clip_grad is None:
        return unchanged
    if callable(clip_grad):
        return clip_grad
    check_clip_grad(clip_grad, others="a function of the gradients, ")
    return GlobalNorm(float(clip_grad))


def unchanged(gradients):
    """The gradients as they are."""
    return gradients


def sum_of_squares(array):
    """In float64, where it cannot overflow."""
    wide = ops.cast(array, ms.float64)
    return (wide * wide).sum()


class GlobalNorm(nn.Cell):
    """Gradients times :func:`~hessiod.core.clipping.clip_factor` of their norm."""

    def __init__(self, norm: float) -> None:
        super().__init__(auto_prefix=False)
        self.norm = Tensor(norm, ms.float64)

    def construct(self, gradients):
        """The clipped gradients."""
        total = ops.sqrt(ops.stack(each(sum_of_squares, gradients)).sum())
        return each(times, gradients, clip_factor(xp, self.norm, total))
