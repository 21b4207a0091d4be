"""Scale and shift of BatchNorm, LayerNorm, GroupNorm and RMSNorm: a 2 x 2 Fisher block for each channel.

An example's gradient is summed over its positions before it is squared. With several targets an example (tokens) that
is exact for sampled targets, which are independent of each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.kronecker.layers import Seen, Slot
from hessiod.backends_torch.precision import widened
from hessiod.core.kronecker import unitwise

CHANNELS_SECOND = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)
CHANNELS_LAST = (nn.LayerNorm, nn.RMSNorm)


def normalized(module: Any, x: Tensor) -> Tensor:
    """What the module's scale is multiplied by."""
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.RMSNorm):
        return F.rms_norm(x, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    if module.training or module.running_mean is None:
        return F.batch_norm(x, None, None, training=True, eps=module.eps)
    return F.batch_norm(x, widened(module.running_mean), widened(module.running_var), eps=module.eps)


class Norm:
    """A normalisation layer's scale and shift, or one of them; ``roles`` says which slot is which."""

    kind = "unit-wise"
    statistics = ("f",)
    one_matrix = False

    def __init__(self, name: str, module: Any, slots: list[Slot], roles: tuple[str, ...]) -> None:
        self.name, self.modules, self.slots, self.roles, self.label = name, [module], slots, roles, ""

    @property
    def params(self) -> list[Tensor]:
        """Scale and shift."""
        return [slot.param for slot in self.slots]

    @property
    def shape(self) -> tuple[int, int]:
        """Two, and the number of channels."""
        return len(self.slots), self.slots[0].param.numel()

    def inputs(self, module: Any, x: Tensor) -> Seen:
        """Nothing yet but the normalised input, which the gradients will be multiplied by."""
        return Seen(torch.empty(0), x.shape[0], normalized(module, widened(x.detach())))

    def outputs(self, grad: Tensor, context: Tensor) -> Tensor:
        """``sum_n`` of the products of per-example gradients, ``[3, channels]``."""
        rows = [self._per_example(part) for part in (widened(grad) * context, widened(grad))]
        return torch.cat(unitwise.unit_sums(xp, *rows))

    def _per_example(self, grad: Tensor) -> Tensor:
        if isinstance(self.modules[0], CHANNELS_SECOND):
            return grad.flatten(2).sum(-1) if grad.dim() > 2 else grad
        channels = self.slots[0].param.numel()
        rows = grad.reshape(-1, channels) if grad.shape == self.slots[0].param.shape else grad
        return rows.reshape(rows.shape[0], -1, channels).sum(1)

    def factor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The three sums."""
        return {"f": (3, self.slots[0].param.numel())}

    def inverse_cost(self, block: int | None) -> float:
        """Nothing that counts: the blocks are inverted in closed form where they are used."""
        return 0.0

    def direction(self, grads: list[Tensor], factor: Tensor, damping: float) -> list[Tensor]:
        """``(F_c + damping I)^-1`` times the gradients, in the slots' shapes."""
        flat = [grad.reshape(-1) for grad in grads]
        if self.roles == ("scale", "shift"):
            found = unitwise.precondition_unit(xp, *flat, *factor, damping=damping)
        else:
            square = factor[0 if self.roles == ("scale",) else 2]
            found = (unitwise.precondition_scale(xp, flat[0], square, damping=damping),)
        return [part.reshape(grad.shape) for part, grad in zip(found, grads, strict=True)]

    def curvature(self, moves: list[Tensor], factor: Tensor) -> Tensor:
        """``<delta, F delta>`` of a change of scale and shift."""
        zero = torch.zeros_like(moves[0])
        pair = {role: move.reshape(-1) for role, move in zip(self.roles, moves, strict=True)}
        scale, shift = (pair.get(role, zero.reshape(-1)) for role in ("scale", "shift"))
        gg, gb, bb = factor
        return (gg * scale * scale + 2.0 * gb * scale * shift + bb * shift * shift).sum()
