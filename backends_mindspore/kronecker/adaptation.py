"""Levenberg-Marquardt damping: how well a step was predicted by the factors' quadratic model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from hessiod.backends.numpy import namespace as xp
from hessiod.backends_mindspore.holder import Holder, put
from hessiod.backends_mindspore.kronecker import blocks
from hessiod.backends_mindspore.slots import zeros_for
from hessiod.core.kronecker.damping import LevenbergMarquardt
from hessiod.core.kronecker.fixed import due
from hessiod.core.kronecker.precondition import quadratic_model


class LossOf(nn.Cell):
    """The loss of a batch, without a gradient."""

    def __init__(self, net: nn.Cell, loss_fn: Any) -> None:
        super().__init__(auto_prefix=False)
        self.net, self.loss_fn = net, loss_fn

    @ms.jit
    def construct(self, *inputs):
        """The loss."""
        return self.loss_fn(self.net(*inputs[:-1]), inputs[-1])


class Adaptation(Holder):
    """What an adaptation compares: the loss before and after a step, and what the model of the step promised.

    ``used`` are the gradients that the step was taken by, of covered parameters: averaged, unscaled, clipped.
    """

    def __init__(self, net: nn.Cell, loss_fn: Any, optimizer: Any) -> None:
        super().__init__(auto_prefix=False)
        self.loss, self.optimizer = LossOf(net, loss_fn), optimizer
        self.used = zeros_for(optimizer.parameters, "used_gradient")
        self.rule = LevenbergMarquardt(optimizer.adapt_every)
        self.buffers = [param for _, cell in net.cells_and_names() for param in moving_statistics(cell)]

    def keep(self, gradients):
        """Keep the gradients of the coming step; in the graph."""
        for kept, gradient in zip(self.used, gradients[: len(self.used)]):  # noqa: B905 - strict= cannot be traced
            ops.assign(kept, ops.cast(gradient, kept.dtype))
        return True

    @property
    def due(self) -> bool:
        """Whether the coming step is one to look at."""
        return due(self.optimizer.steps + 1, self.optimizer.adapt_every)

    def weights(self) -> list[np.ndarray]:
        """The covered parameters as they are."""
        return [param.asnumpy().copy() for param in self.optimizer.parameters]

    def losses(self, taken: Sequence[tuple[tuple[Tensor, ...], Tensor]]) -> tuple[float, float]:
        """The mean loss of some batches as it was, and as it is now; moving statistics do not see them again."""
        with unmoved(self.buffers):
            after = [float(self.loss(*inputs).asnumpy()) for inputs, _ in taken]
        before = [float(loss.asnumpy()) for _, loss in taken]
        return float(np.mean(before)), float(np.mean(after))

    def settle(self, earlier: Sequence[np.ndarray], before: float, after: float) -> None:
        """Adapt the damping to a step from ``earlier`` weights that changed the loss."""
        optimizer = self.optimizer
        optimizer.damping = self.rule.next(optimizer.damping, before, after, self.model(earlier))

    def model(self, earlier: Sequence[np.ndarray]) -> float:
        """``<grad, delta> + 1/2 <delta, F delta> + 1/2 damping |delta|^2`` of the step from ``earlier`` weights."""
        optimizer = self.optimizer
        grads = [kept.asnumpy() for kept in self.used]
        moves = [
            param.asnumpy().astype(grad.dtype) - old.astype(grad.dtype)
            for param, old, grad in zip(optimizer.parameters, earlier, grads, strict=True)
        ]
        slope = sum(float((grad * move).sum()) for grad, move in zip(grads, moves, strict=True))
        length = sum(float((move * move).sum()) for move in moves)
        bent = sum(
            blocks.curvature(layer, [moves[place] for place in places], state.read())
            for (layer, state), places in zip(optimizer.states.items(), optimizer.layer_places, strict=True)
        )
        return float(quadratic_model(xp, slope, bent, length, damping=optimizer.damping))


def moving_statistics(cell: Any) -> list[Parameter]:
    """The moving mean and variance of a BatchNorm."""
    found = [getattr(cell, name, None) for name in ("moving_mean", "moving_variance")]
    return [param for param in found if isinstance(param, Parameter)]


@contextmanager
def unmoved(buffers: Sequence[Parameter]):
    """Put parameters back after the block."""
    before = [param.asnumpy().copy() for param in buffers]
    yield
    for param, array in zip(buffers, before, strict=True):
        put(param, array)
