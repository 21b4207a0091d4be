"""Learning rates in double precision.

MindSpore keeps learning rates as float32. A rule's scalars are worked out in doubles, and ``1 - lr * weight_decay`` or
``lr / (1 - beta1^t)`` from a rounded learning rate can end an ULP away from what another framework gets. So the doubles
the user gave are kept beside MindSpore's own, and used wherever its value is the rounding of theirs. A value that was
assigned to ``optimizer.learning_rate`` later, or comes from a schedule Cell, is used as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


def doubles(rate: Any) -> np.ndarray:
    """The learning rates the user gave, one a step; NaN where only the framework knows them."""
    if isinstance(rate, Tensor):
        rate = rate.asnumpy()
    if isinstance(rate, nn.Cell) or not isinstance(rate, int | float | Iterable):
        return np.array([np.nan])
    return np.atleast_1d(np.asarray(rate, np.float64))


class LearningRates:
    """The doubles of each group."""

    def __init__(self, rates: Sequence[Any]) -> None:
        self.tables = tuple(Tensor(doubles(rate)) for rate in rates)
        self.lasts = tuple(len(doubles(rate)) - 1 for rate in rates)

    def exact(self, rate, group, step):
        """The double behind a float32 learning rate of a group at a step; traced by ms.jit."""
        double = ops.gather(self.tables[group], ops.minimum(step, self.lasts[group]), 0)
        return ops.where(ops.cast(double, ms.float32) == rate, double, ops.cast(rate, ms.float64))
