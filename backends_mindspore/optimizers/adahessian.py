"""AdaHessian."""

from __future__ import annotations

from typing import Any

from hessiod.backends_mindspore.second_order import HutchinsonOptimizer
from hessiod.core.adahessian import adahessian_rule, check_averaging


class AdaHessian(HutchinsonOptimizer):
    """AdaHessian (Yao et al., arXiv:2006.00719, Algorithm 1), the equations in :mod:`hessiod.core.adahessian`.

    Train with :class:`hessiod.mindspore.TrainStep`. Operators whose second derivative MindSpore has wrong are refused
    by name.

    Args:
        params: parameters, or groups with "params", "lr", "weight_decay", "order_params".
        learning_rate: a number, a list, a Tensor or a schedule Cell.
        beta1, beta2: decay rates of the gradient's and of the squared curvature's average.
        eps: added to the denominator; the authors' code has 1e-4, the paper none.
        weight_decay: decoupled; a number or a Cell.
        hessian_power: the paper's k, in [0, 1].
        spatial_averaging: "none"; "kernel", the mean of the magnitudes over the kernel of a convolution, as in the
            authors' code; or the length of a block of consecutive entries, whose signed mean is the paper's.
        every: steps between two estimates; the bias correction counts estimates.
        samples, probe: how many probes an estimate is the mean of, and their distribution.
        seed: of the probes.
        loss_scale, nonfinite: see :class:`~hessiod.backends_mindspore.adapter.RuleOptimizer`.

    State per parameter, of its shape: ``exp_avg`` (m) and ``exp_hessian_diag_sq`` (v).
    """

    signed_curvature = False

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 0.15,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-4,
        weight_decay: Any = 0.0,
        hessian_power: float = 1.0,
        spatial_averaging: str | int = "none",
        every: int = 1,
        samples: int = 1,
        probe: str = "rademacher",
        seed: int = 0,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        check_averaging(spatial_averaging)
        rule = adahessian_rule({"hessian_power": hessian_power})
        given = dict(beta1=beta1, beta2=beta2, eps=eps, hessian_power=hessian_power)
        hyperparameters = {name: value for name, value in given.items() if name in rule.hyperparameters}
        estimate: dict[str, Any] = dict(
            every=every, samples=samples, probe=probe, seed=seed, spatial_averaging=spatial_averaging
        )
        settings: dict[str, Any] = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(rule, params, learning_rate, hyperparameters, **estimate, **settings)
