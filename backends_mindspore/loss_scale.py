"""What a loss is multiplied by before it is differentiated in half precision, and how that follows overflows."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.amp import LossScaler, StaticLossScaler
from mindspore.train.loss_scale_manager import LossScaleManager

from hessiod.core.errors import InvalidArgument


class Fixed(nn.Cell):
    """A number."""

    dynamic = False

    def __init__(self, scale: float) -> None:
        super().__init__(auto_prefix=False)
        self.scale = Tensor(scale, ms.float32)

    def current(self):
        """The scale, a 0-d float32 tensor."""
        return self.scale

    def settle(self, finite):
        """After a step, whether its gradients were finite."""
        return finite

    def parameters(self):
        """What of it changes, for a checkpoint."""
        return []


class ByCell(nn.Cell):
    """A scale that an update cell of MindSpore's moves, ``nn.DynamicLossScaleUpdateCell`` for one."""

    dynamic = True

    def __init__(self, update: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.update = update
        self.scale = Parameter(Tensor(update.get_loss_scale(), ms.float32), name="loss_scale", requires_grad=False)

    def current(self):
        """The scale, a 0-d float32 tensor."""
        return self.scale

    def settle(self, finite):
        """After a step, whether its gradients were finite."""
        return self.update(self.scale, ops.logical_not(finite))

    def parameters(self):
        """The scale and the update cell's counters, for a checkpoint."""
        return [self.scale, *self.update.get_parameters()]


class ByScaler(nn.Cell):
    """A scale that an ``ms.amp.DynamicLossScaler`` or another with a ``scale_value`` holds and moves."""

    def __init__(self, scaler: LossScaler) -> None:
        super().__init__(auto_prefix=False)
        self.scaler, self.dynamic = scaler, not isinstance(scaler, StaticLossScaler)

    def current(self):
        """The scale, a 0-d float32 tensor."""
        return ops.cast(self.scaler.scale_value, ms.float32)

    def settle(self, finite):
        """After a step, whether its gradients were finite."""
        return self.scaler.adjust(finite)

    def parameters(self):
        """The scaler's Parameters, for a checkpoint."""
        return [value for value in vars(self.scaler).values() if isinstance(value, Parameter)]


def loss_scale_from(given: Any) -> Fixed | ByCell | ByScaler:
    """A number, or one of MindSpore's managers, update cells and scalers, in the form that a train step uses."""
    if isinstance(given, LossScaleManager):
        given = given.get_update_cell() or given.get_loss_scale()
    if isinstance(given, nn.Cell) and hasattr(given, "get_loss_scale"):
        return ByCell(given)
    if isinstance(given, LossScaler):
        return ByScaler(given)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < float("inf"):
        raise InvalidArgument(
            f"loss_scale: found {given!r}, expected a number > 0, a LossScaleManager, a loss-scale update cell or an "
            "ms.amp.LossScaler; 1 for no scaling"
        )
    return Fixed(float(given))
