"""What every second-order optimizer adds to the adapter, and the Cell that trains with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.curvature import GaussNewtonBartlett, Hutchinson, Loss
from hessiod.backends_mindspore.derivatives.cures.marker import under_cures
from hessiod.backends_mindspore.derivatives.graph import Watched
from hessiod.backends_mindspore.holder import Holder
from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.core.rule import Rule
from hessiod.core.settings import check_settings


class CurvatureOptimizer(RuleOptimizer):
    """A rule that folds a curvature estimate into its state every ``every`` steps, first at step 1.

    An estimate needs the forward pass, so such an optimizer trains through :class:`TrainStep`. ``first`` is the number
    of steps before the first estimate.
    """

    def __init__(
        self,
        rule: Rule,
        params: Any,
        learning_rate: Any,
        hyperparameters: Mapping[str, float],
        *,
        every: int,
        seed: int,
        first: int = 0,
        **settings: Any,
    ) -> None:
        check_settings({"every": every, "seed": seed})
        super().__init__(rule, params, learning_rate, hyperparameters, **settings)
        self.every, self.curvature_first = every, first
        self.seed = seed - 2**64 if seed >= 2**63 else seed  # a graph's integers are int64: the same bits

    @property
    def curvature_due(self) -> bool:
        """Whether the coming step wants a curvature estimate: at steps 1, 1 + every, 1 + 2 * every, ..."""
        return self._due_after(self.steps)

    def _due_after(self, steps: int) -> bool:
        return steps >= self.curvature_first and steps % self.every == 0

    def refreshes_by(self, step: int) -> int:
        """How many estimates the first ``step`` steps fold in."""
        return sum(self._due_after(steps) for steps in range(step))

    def estimate_with(self, net: nn.Cell, loss_fn: Any) -> nn.Cell:
        """The estimator as a Cell of (step, inputs) that returns loss, gradients and estimates."""
        raise NotImplementedError

    def construct(self, gradients):
        """Refused in a graph, which can raise only Python's own exceptions; see :meth:`__call__`."""
        raise RuntimeError("this optimizer needs curvature: train with hessiod.mindspore.TrainStep(net, loss_fn, opt)")

    def __call__(self, gradients: Any) -> Any:
        """Refused: without a forward pass there is no curvature, and the step would be a silent sign step."""
        raise InvalidState("this optimizer needs curvature: train with hessiod.mindspore.TrainStep(net, loss_fn, opt)")


class HutchinsonOptimizer(CurvatureOptimizer):
    """A rule whose curvature is Hutchinson's estimate, a mean over ``samples`` probes, spatially averaged."""

    def __init__(
        self,
        *arguments: Any,
        probe: str = "rademacher",
        samples: int = 1,
        spatial_averaging: str | int = "none",
        **settings: Any,
    ) -> None:
        check_settings({"probe": probe, "samples": samples})
        super().__init__(*arguments, **settings)
        self.probe, self.samples, self.spatial_averaging = probe, samples, spatial_averaging

    def estimate_with(self, net: nn.Cell, loss_fn: Any) -> nn.Cell:
        """Hutchinson's estimate."""
        scale, averaging = self.loss_scale, self.spatial_averaging
        return Hutchinson(net, loss_fn, self.parameters, scale, self.seed, self.probe, self.samples, averaging)


class GaussNewtonOptimizer(CurvatureOptimizer):
    """A rule whose curvature is the Gauss-Newton-Bartlett estimate over the leading ``fraction`` of the examples."""

    def __init__(
        self, *arguments: Any, likelihood: str = "categorical", fraction: float = 1.0, **settings: Any
    ) -> None:
        check_settings({"likelihood": likelihood, "fraction": fraction})
        super().__init__(*arguments, **settings)
        self.likelihood, self.fraction = likelihood, float(fraction)

    def estimate_with(self, net: nn.Cell, loss_fn: Any) -> nn.Cell:
        """The Gauss-Newton-Bartlett estimate."""
        scale, seed = self.loss_scale, self.seed
        return GaussNewtonBartlett(net, loss_fn, self.parameters, scale, seed, self.likelihood, self.fraction)


class TrainStep(Holder):
    """One training step as a Cell: ``loss = step(*inputs, target)``.

    The whole step, with forward, backward, curvature where it is due, and update, is one graph in both modes. It can be
    given to ``ms.train.Model`` as the train network.

    Args:
        net: from inputs to outputs (logits).
        loss_fn: from outputs and target to a scalar.
        optimizer: an optimizer of this package.
        uncertified: for SophiaH and others that differentiate the net twice, as for
            :func:`~hessiod.backends_mindspore.derivatives.functions.hvp`.

    Raises:
        InvalidArgument: at the first step, for an operator whose second derivative is not right, with an optimizer
            that needs it.
        NonFinite: when a step was refused; nothing was changed.

    >>> import mindspore as ms, numpy as np
    >>> from mindspore import nn
    >>> from hessiod.mindspore import SophiaG, TrainStep
    >>> _ = ms.set_seed(0)
    >>> net, x = nn.Dense(8, 4), ms.Tensor(np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32))
    >>> y = ms.Tensor(np.arange(32, dtype=np.int32) % 4)
    >>> opt = SophiaG(net.trainable_params(), learning_rate=0.01, every=10)
    >>> step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    >>> losses = [float(step(x, y).asnumpy()) for _ in range(20)]
    >>> losses[-1] < losses[0], opt.steps
    (True, 20)
    """

    def __init__(self, net: nn.Cell, loss_fn: Any, optimizer: RuleOptimizer, *, uncertified: str = "check") -> None:
        super().__init__(auto_prefix=False)
        if not isinstance(optimizer, RuleOptimizer):
            raise InvalidArgument(
                f"optimizer: found {type(optimizer).__name__}, expected an optimizer of hessiod.mindspore; MindSpore's "
                "own train with nn.TrainOneStepCell"
            )
        self.optimizer, self.weights = optimizer, optimizer.parameters
        self.loss = Loss(net, loss_fn, optimizer.loss_scale)
        self.second_order = isinstance(optimizer, CurvatureOptimizer)
        if self.second_order:
            self.every, self.curvature_first = optimizer.every, optimizer.curvature_first
            self.estimate = optimizer.estimate_with(net, loss_fn)
        self.twice = isinstance(optimizer, HutchinsonOptimizer)
        if self.twice:
            self.watched = Watched(net, loss_fn, self.weights, uncertified)

    def plain_step(self, inputs):
        """Forward, backward and update."""
        (_, loss), gradients = ms.value_and_grad(self.loss, None, self.weights, has_aux=True)(inputs)
        self.optimizer.guarded_step(gradients)
        return loss

    def curvature_step(self, inputs):
        """Forward, backward, curvature and update."""
        step = ops.cast(self.optimizer.global_step[0] + 1, ms.int64)
        loss, gradients, estimates = self.estimate(step, inputs)
        self.optimizer.guarded_refresh_and_step(gradients, estimates)
        return loss

    @ms.jit
    def construct(self, *inputs):
        """One step on a batch whose last input is the target."""
        if self.twice and not under_cures():
            raise RuntimeError("TrainStep with this optimizer cannot be part of another graph; call it from the host")
        if self.second_order:
            step = self.optimizer.global_step[0]
            if ops.logical_and(step >= self.curvature_first, step % self.every == 0):
                loss = self.curvature_step(inputs)
            else:
                loss = self.plain_step(inputs)
        else:
            loss = self.plain_step(inputs)
        return loss

    def __call__(self, *inputs: Tensor) -> Tensor:
        """One step; raise if it was refused and that was asked for."""
        with self.watched.step(inputs) if self.twice else nullcontext():
            loss = super().__call__(*inputs)
        self.optimizer.raise_if_refused()
        return loss
