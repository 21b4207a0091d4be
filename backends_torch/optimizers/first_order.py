"""First-order optimizers: the baseline of every comparison, and the fallback for what a second-order one leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessiod.backends_torch.adapter import RuleOptimizer
from hessiod.core.rule import Rule
from hessiod.core.rules import RULES
from hessiod.core.sgd import sgd_rule


class AdamW(RuleOptimizer):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2), the equations in :mod:`hessiod.core.adamw`.

    The baseline of every comparison and the fallback for parameters that a Kronecker method does not cover. Defaults
    and meaning are ``torch.optim.AdamW``'s.

    State per parameter, of its shape: ``exp_avg`` and ``exp_avg_sq``.

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
    >>> opt = AdamW([theta], lr=0.1, weight_decay=0.0)
    >>> theta.square().sum().backward()
    >>> _ = opt.step()
    >>> theta.data
    tensor([0.9000])
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        hyperparameters = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(params, hyperparameters, **settings)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """AdamW's, for every group."""
        return RULES["adamw"]


class SGD(RuleOptimizer):
    """SGD with momentum or Nesterov's momentum, in the equations of :mod:`hessiod.core.sgd`, like ``torch.optim.SGD``.

    State per parameter: ``momentum_buffer``, of its shape, in groups with momentum; none in the others.

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([1.0]))
    >>> opt = SGD([theta], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     theta.grad = torch.tensor([1.0])
    ...     _ = opt.step()
    >>> theta.data
    tensor([0.7100])
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        numbers = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        hyperparameters = {**numbers, "nesterov": nesterov}
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(params, hyperparameters, **settings)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """Plain, with momentum or Nesterov's, as the group's hyperparameters say."""
        return sgd_rule(group)
