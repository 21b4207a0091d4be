"""AdaHessian."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.second_order import CurvatureOptimizer
from hessiod.core.adahessian import adahessian_rule, check_averaging, spatial_average
from hessiod.core.rule import Rule


class AdaHessian(CurvatureOptimizer):
    r"""Adam with the Hessian's diagonal for the squared gradient (Yao et al., arXiv:2006.00719, Algorithm 1).

    .. math::
        D_t = u \odot \nabla \langle \nabla L(\theta_t), u \rangle, \qquad
        v_t = \beta_2 v_{t-k} + (1 - \beta_2)\,D_t^2 \quad\text{every } k \text{ steps} \\
        m_t = \beta_1 m_{t-1} + (1 - \beta_1)\,g_t \\
        \theta_t = (1 - \eta\lambda)\,\theta_{t-1} - \eta\,\frac{m_t / (1 - \beta_1^t)}
        {\sqrt{v_t / (1 - \beta_2^n)}^{\,p} + \epsilon}

    n counts the curvature updates, not the steps: with ``every > 1`` the authors' code corrects v by too little a bias.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: learning rate.
        betas: decay rates of the gradient's average and of the squared curvature's.
        eps: added to the denominator; the paper's algorithm has none, its code 1e-4.
        weight_decay: decoupled.
        hessian_power: the p above, from 0 (momentum) to 1.
        spatial_averaging: of the estimate, before it is squared. "none"; "kernel", as in the authors' code: the mean of
            its absolute value over the dimensions after the second, for parameters of 3 dimensions and more (weights of
            convolutions, [out, in, ...]); or a whole number b, the paper's equation 10: the signed mean over each b
            consecutive entries. A group may have its own.
        every: steps between two estimates.
        samples: probes of each estimate.
        probe: "rademacher" or "normal".
        seed: of the probes.
        maximize, nonfinite, missing, capturable, clip_grad: see :class:`~hessiod.backends_torch.adapter.RuleOptimizer`.

    State per parameter, of its shape: ``exp_avg`` (m) and ``exp_hessian_diag_sq`` (v).

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> opt = AdaHessian([theta], lr=0.5, eps=0.0)
    >>> loss = (theta**2 * torch.tensor([2.0, 8.0])).sum() / 2     # Hessian diag(2, 8): half of Newton's step
    >>> opt.update_curvature(loss=loss)
    >>> loss.backward()
    >>> _ = opt.step()
    >>> theta.data
    tensor([0.5000, 0.5000])
    """

    signed_curvature = False

    def __init__(
        self,
        params: Any,
        lr: float = 0.15,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        hessian_power: float = 1.0,
        spatial_averaging: str | int = "none",
        *,
        every: int = 1,
        samples: int = 1,
        probe: str = "rademacher",
        seed: int = 0,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        numbers = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, hessian_power=hessian_power)
        shared = dict(every=every, samples=samples, probe=probe, seed=seed, estimator="hutchinson")
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(params, {**numbers, "spatial_averaging": spatial_averaging, **shared}, **settings)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """With Hessian power 1 or another, as the group says."""
        return adahessian_rule(group)

    def checked_values(self, group: Mapping[str, Any], number: Callable[[Tensor], Any] = Tensor.item) -> dict[str, Any]:
        """The numbers as everywhere, and the spatial averaging besides."""
        check_averaging(group["spatial_averaging"])
        return super().checked_values(group, number)

    def _estimate_for(self, group: Mapping[str, Any], estimate: Tensor) -> Tensor:
        return spatial_average(xp, estimate, group["spatial_averaging"])
