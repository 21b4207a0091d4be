"""What every second-order optimizer adds to the adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindspore import nn

from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.curvature import GaussNewtonBartlett, Hutchinson
from hessiod.backends_mindspore.parallel import Processes
from hessiod.core.errors import InvalidState
from hessiod.core.rule import Rule
from hessiod.core.settings import check_settings


class CurvatureOptimizer(RuleOptimizer):
    """A rule that folds a curvature estimate into its state every ``every`` steps, first at step 1.

    An estimate needs the forward pass, so such an optimizer trains through
    :class:`~hessiod.backends_mindspore.train_step.TrainStep`. ``first`` is the number of steps before the first
    estimate.
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

    def estimate_with(self, net: nn.Cell, loss_fn: Any, processes: Processes) -> nn.Cell:
        """The estimator as a Cell of (step, micro-batch, loss scale, inputs): see :mod:`.curvature`."""
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

    def estimate_with(self, net: nn.Cell, loss_fn: Any, processes: Processes) -> nn.Cell:
        """Hutchinson's estimate."""
        averaging = self.spatial_averaging
        return Hutchinson(net, loss_fn, self.parameters, self.seed, self.probe, self.samples, averaging)


class GaussNewtonOptimizer(CurvatureOptimizer):
    """A rule whose curvature is the Gauss-Newton-Bartlett estimate over the leading ``fraction`` of the examples."""

    def __init__(
        self, *arguments: Any, likelihood: str = "categorical", fraction: float = 1.0, **settings: Any
    ) -> None:
        check_settings({"likelihood": likelihood, "fraction": fraction})
        super().__init__(*arguments, **settings)
        self.likelihood, self.fraction = likelihood, float(fraction)

    def estimate_with(self, net: nn.Cell, loss_fn: Any, processes: Processes) -> nn.Cell:
        """The Gauss-Newton-Bartlett estimate, its targets numbered through the processes."""
        kind = self.likelihood, self.fraction
        return GaussNewtonBartlett(net, loss_fn, self.parameters, self.seed, *kind, processes)
