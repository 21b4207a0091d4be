"""DiagonalNewton."""

from __future__ import annotations

from typing import Any

from hessiod.backends_mindspore.second_order import HutchinsonOptimizer
from hessiod.core.diagonal_newton import diagonal_newton_rule
from hessiod.core.settings import check_settings


class DiagonalNewton(HutchinsonOptimizer):
    """The gradient over an average of the Hessian's diagonal, the equations in :mod:`hessiod.core.diagonal_newton`.

    Train with :class:`hessiod.mindspore.TrainStep`. Operators whose second derivative MindSpore has wrong are refused
    by name.

    Args:
        params: parameters, or groups with "params", "lr", "weight_decay", "order_params".
        learning_rate: a number, a list, a Tensor or a schedule Cell; 1 is Newton's step.
        beta: decay rate of the curvature's average.
        damping: added to the curvature's magnitude; bounds a step by ``lr / damping`` times the gradient.
        weight_decay: decoupled; a number or a Cell.
        power: of the curvature, 1 or 0.5.
        num_vectors: how many probes an estimate is the mean of.
        every: steps between two estimates.
        probe, seed: the probes' distribution and seed.
        loss_scale, nonfinite: see :class:`~hessiod.backends_mindspore.adapter.RuleOptimizer`.

    State per parameter, of its shape: ``hessian`` (h).
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 0.1,
        beta: float = 0.9,
        damping: float = 1e-3,
        weight_decay: Any = 0.0,
        power: float = 1,
        num_vectors: int = 1,
        every: int = 1,
        probe: str = "rademacher",
        seed: int = 0,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        check_settings({"num_vectors": num_vectors})
        rule = diagonal_newton_rule({"power": power})
        estimate: dict[str, Any] = dict(every=every, samples=num_vectors, probe=probe, seed=seed)
        settings: dict[str, Any] = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(rule, params, learning_rate, dict(beta=beta, damping=damping), **estimate, **settings)
