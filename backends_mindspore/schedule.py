"""Learning rates in double precision.

MindSpore keeps learning rates as float32. A rule's scalars are worked out in doubles, and ``1 - lr * weight_decay`` or
``lr / (1 - beta1^t)`` from a rounded learning rate can end an ULP away from what another framework gets. So the doubles
the user gave are kept beside MindSpore's own, and used wherever its value is the rounding of theirs. A value that was
assigned to ``optimizer.learning_rate`` later, or comes from a schedule Cell, is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule
from mindspore.nn.optim.optimizer import _ConvertToCell

from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Rule


class Constant(_ConvertToCell):
    """A group's fixed learning rate beside a group whose rate changes.

    MindSpore's own form of it is ``lr + 1.0 - 1.0`` in float32, which moves 6e-4 by 2e-8 and 1e-8 to zero.
    """

    def construct(self, global_step):
        """The same at every step."""
        return self.learning_rate * 1.0


def doubles(rate: Any) -> np.ndarray:
    """The learning rates the user gave, one a step; NaN where only the framework knows them."""
    if isinstance(rate, Tensor):
        rate = rate.asnumpy()
    if isinstance(rate, nn.Cell):
        return np.array([np.nan])
    return np.atleast_1d(np.asarray(rate, np.float64))


def check_rate(rule: Rule, rate: Any, name: str = "learning_rate") -> None:
    """Raise :class:`InvalidArgument` unless every learning rate is one that the rule can take."""
    if isinstance(rate, LearningRateSchedule):
        return
    try:
        values = doubles(rate)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or not values.size:
        raise InvalidArgument(
            f"{name}: found {rate!r}, expected a number, a list or 1-D Tensor of numbers, or a LearningRateSchedule"
        )
    for value in values:
        rule.hyperparameters["lr"].check(name, float(value))


class LearningRates:
    """The doubles of each group."""

    def __init__(self, rates: Sequence[Any]) -> None:
        self.tables = tuple(Tensor(doubles(rate)) for rate in rates)
        self.lasts = tuple(len(doubles(rate)) - 1 for rate in rates)

    def exact(self, rate, group, step):
        """The double behind a float32 learning rate of a group at a step; traced by ms.jit."""
        double = ops.gather(self.tables[group], ops.minimum(step, self.lasts[group]), 0)
        return ops.where(ops.cast(double, ms.float32) == rate, double, ops.cast(rate, ms.float64))
