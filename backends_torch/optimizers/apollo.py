"""Apollo and ApolloW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessiod.backends_torch.adapter import RuleOptimizer
from hessiod.core.apollo import apollo_rule
from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Rule


class Apollo(RuleOptimizer):
    r"""Apollo, a diagonal quasi-Newton method (Ma, arXiv:2009.13586, Algorithm 1, in the form of August 2021).

    .. math::
        m_t = m_{t-1} + a\,(g_t - m_{t-1}), \qquad a = (1 - \beta) / (1 - \beta^t) \\
        B_t = B_{t-1} + \delta\,v^2, \qquad v = d_{t-1} / (\|d_{t-1}\|_4 + \epsilon / \sigma) \\
        d_t = m_t / \max(|B_t|, \sigma), \qquad \theta_t = \theta_{t-1} - \eta_t\,d_t

    with :math:`\delta` such that the weak secant equation :math:`d' B_t d = -(m_t - m_{t-1})' d` holds for each
    parameter tensor; all of it in :mod:`hessiod.core.apollo`. It learns curvature from successive gradients: a plain
    loop, without ``update_curvature``. Not the APOLLO of arXiv:2412.05270, a memory-efficient Adam.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: learning rate.
        beta: decay rate of the gradient's average.
        eps: over sigma, keeps the secant's denominator from zero.
        sigma: floor of the curvature. (lr, sigma) and (c lr, c sigma) are the same optimizer (Theorem 1).
        warmup: steps over which lr rises linearly from ``warmup_start`` of it. The first step is SGD's with the rate
            lr / sigma, 1 by default. A scheduler sets lr itself, so the two multiply. ``OneCycleLR`` needs
            ``cycle_momentum=False``: there are no ``betas`` that it could move.
        warmup_start: the share of lr at the first step.
        weight_decay: by the mode below.
        weight_decay_type: "L2" (added to the gradient), "decoupled" (to the direction: :class:`ApolloW`), or "stable"
            (to the direction, divided by the mean curvature).
        maximize, nonfinite, missing, capturable, clip_grad: see :class:`~hessiod.backends_torch.adapter.RuleOptimizer`.

    State per parameter, of its shape: ``exp_avg_grad`` (m), ``approx_hessian`` (B) and, unless the decay is "L2",
    ``update`` (d).

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> opt = Apollo([theta], lr=0.5, beta=0.0, sigma=1.0, warmup=0)
    >>> for _ in range(30):
    ...     opt.zero_grad()
    ...     (theta**2 * torch.tensor([1.0, 4.0])).sum().div(2).backward()     # Hessian diag(1, 4)
    ...     _ = opt.step()
    >>> bool(theta.abs().max() < 1e-3)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        beta: float = 0.9,
        eps: float = 1e-4,
        sigma: float = 0.01,
        warmup: int = 500,
        warmup_start: float = 1e-3,
        weight_decay: float = 0.0,
        weight_decay_type: str = "L2",
        *,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        numbers = dict(lr=lr, beta=beta, eps=eps, sigma=sigma, warmup=warmup, warmup_start=warmup_start)
        decay = dict(weight_decay=weight_decay, weight_decay_type=weight_decay_type)
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(params, {**numbers, **decay}, **settings)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """By the group's mode of weight decay."""
        return apollo_rule(group["weight_decay_type"])


class ApolloW(Apollo):
    """Apollo with decoupled weight decay; the arguments are :class:`Apollo`'s, without ``weight_decay_type``.

    The decay is part of the stored direction and enters the next secant, as in the author's code.

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([2.0]))
    >>> opt = ApolloW([theta], lr=0.1, sigma=0.1, warmup=0, weight_decay=0.5)
    >>> theta.grad = torch.tensor([1.0])
    >>> _ = opt.step()                                  # 2 - 0.1 * (1 / 0.1 + 0.5 * 2)
    >>> theta.data
    tensor([0.9000])
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        beta: float = 0.9,
        eps: float = 1e-4,
        sigma: float = 0.01,
        warmup: int = 500,
        warmup_start: float = 1e-3,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(params, lr, beta, eps, sigma, warmup, warmup_start, weight_decay, "decoupled", **settings)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """The decoupled mode's, for every group."""
        if group["weight_decay_type"] != "decoupled":
            raise InvalidArgument(
                f"weight_decay_type: found {group['weight_decay_type']!r}, expected 'decoupled'; use Apollo for others"
            )
        return super().rule_of(group)
