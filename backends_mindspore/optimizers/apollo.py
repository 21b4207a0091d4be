"""Apollo and ApolloW."""

from __future__ import annotations

from typing import Any

from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.core.apollo import apollo_rule


class Apollo(RuleOptimizer):
    """Apollo (Ma, arXiv:2009.13586, Algorithm 1), the equations in :mod:`hessiod.core.apollo`.

    Not the APOLLO of arXiv:2412.05270. It needs gradients only, so every loop for a MindSpore optimizer trains it.

    Args:
        params: parameters, or groups with "params", "lr", "weight_decay", "order_params".
        learning_rate: a number, a list, a Tensor or a schedule Cell; the warm-up multiplies it.
        beta: decay rate of the gradient's average, which is bias-corrected.
        eps: in the secant's denominator.
        sigma: floor of the curvature's magnitude; scales with the learning rate.
        warmup, warmup_start: steps of a linear warm-up, and the share of the learning rate that it starts from.
        weight_decay, weight_decay_type: "L2", "decoupled" (:class:`ApolloW`) or "stable".
        loss_scale, nonfinite: see :class:`~hessiod.backends_mindspore.adapter.RuleOptimizer`.

    State per parameter, of its shape: ``exp_avg_grad`` (m), ``approx_hessian`` (B) and, unless the decay is "L2",
    ``update`` (d).

    >>> import mindspore as ms
    >>> theta = ms.Parameter(ms.Tensor([1.0, 2.0]), name="theta")
    >>> opt = Apollo([theta], learning_rate=0.25, sigma=0.5, warmup=0)       # the first step is SGD with lr / sigma
    >>> opt((ms.Tensor([1.0, -4.0]),))
    True
    >>> theta.asnumpy()
    array([0.5, 4. ], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 0.01,
        beta: float = 0.9,
        eps: float = 1e-4,
        sigma: float = 0.01,
        warmup: int = 500,
        warmup_start: float = 1e-3,
        weight_decay: Any = 0.0,
        weight_decay_type: str = "L2",
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        hyperparameters = dict(beta=beta, eps=eps, sigma=sigma, warmup=warmup, warmup_start=warmup_start)
        rule = apollo_rule(weight_decay_type)
        super().__init__(rule, params, learning_rate, hyperparameters, weight_decay, loss_scale, nonfinite)


class ApolloW(Apollo):
    """:class:`Apollo` with decoupled weight decay; the arguments are Apollo's, without ``weight_decay_type``."""

    def __init__(self, params: Any, learning_rate: Any = 0.01, **options: Any) -> None:
        super().__init__(params, learning_rate, **options, weight_decay_type="decoupled")
