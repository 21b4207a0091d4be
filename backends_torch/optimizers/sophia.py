"""Sophia, with either of its estimators of the Hessian's diagonal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hessiod.backends_torch.diagnostics import share
from hessiod.backends_torch.second_order import CurvatureOptimizer
from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Rule
from hessiod.core.rules import RULES
from hessiod.core.settings import check_settings

RHO = {"gauss-newton-bartlett": 0.05, "hutchinson": 0.01}
"""The paper's gamma for each estimator."""
NOT_OF = {
    "gauss-newton-bartlett": {"samples": 1, "probe": "rademacher"},
    "hutchinson": {"likelihood": "categorical", "fraction": 1.0},
}
"""Arguments that mean nothing to an estimator, with their defaults."""


class Sophia(CurvatureOptimizer):
    r"""Sophia (Liu et al., arXiv:2305.14342, Algorithm 3) with the estimator given by name.

    .. math::
        h_t = \beta_2 h_{t-k} + (1 - \beta_2)\,\hat h_t \quad\text{every } k \text{ steps} \
        m_t = \beta_1 m_{t-1} + (1 - \beta_1)\,g_t \
        \theta_t = (1 - \eta\lambda)\,\theta_{t-1} - \eta\,\mathrm{clip}(m_t / \max(\rho h_t, \epsilon), 1)

    :class:`SophiaG` and :class:`SophiaH` are its two cases, and describe the estimators.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: learning rate; about 0.8 of what suits AdamW, says the paper.
        betas: decay rates of the gradient's and of the curvature's average (paper: 0.96, 0.99; authors' code: 0.965).
        rho: the paper's gamma; larger clips less. None is the paper's: 0.05 (Gauss-Newton-Bartlett) or 0.01.
        eps: floor of the denominator.
        weight_decay: decoupled.
        estimator: "gauss-newton-bartlett" or "hutchinson".
        every: steps between two estimates, the paper's k.
        likelihood: Gauss-Newton-Bartlett: of the targets given the output, "categorical", "bernoulli" or "gaussian"
            (:mod:`hessiod.core.likelihood`).
        fraction: Gauss-Newton-Bartlett: the leading share of the examples whose targets are sampled and counted.
        samples: Hutchinson: probes of each estimate.
        probe: Hutchinson: "rademacher" or "normal", the paper's, with a variance larger by twice the squared diagonal.
        seed: of the sampled targets or probes.
        warm_start: take the first estimate whole, not times 1 - beta2, so that h starts at its right size.
        timing: "paper": first estimate at step 1. "official": at step every + 1, with sign steps before, as in the
            authors' loop.
        maximize, nonfinite, missing, capturable, clip_grad: see :class:`~hessiod.backends_torch.adapter.RuleOptimizer`.

    State per parameter, of its shape: ``exp_avg`` (m) and ``hessian`` (h).

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> chosen = dict(estimator="hutchinson", warm_start=True)
    >>> opt = Sophia([theta], lr=0.1, rho=1.0, betas=(0.0, 0.99), weight_decay=0.0, **chosen)
    >>> loss = (theta**2 * torch.tensor([2.0, 8.0])).sum() / 2     # Hessian diag(2, 8)
    >>> opt.update_curvature(loss=loss)
    >>> loss.backward()
    >>> _ = opt.step()
    >>> opt.state[theta]["hessian"], theta.data
    (tensor([2., 8.]), tensor([0.9000, 0.9000]))
    """

    def __init__(
        self,
        params: Any,
        lr: float = 6e-4,
        betas: tuple[float, float] = (0.96, 0.99),
        rho: float | None = None,
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        *,
        estimator: str = "gauss-newton-bartlett",
        every: int = 10,
        likelihood: str = "categorical",
        fraction: float = 1.0,
        samples: int = 1,
        probe: str = "rademacher",
        seed: int = 0,
        warm_start: bool = False,
        timing: str = "paper",
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        draws: dict[str, Any] = dict(likelihood=likelihood, fraction=fraction, samples=samples, probe=probe)
        check_settings({"estimator": estimator, **draws})
        for name, default in NOT_OF[estimator].items():
            if draws[name] != default:
                raise InvalidArgument(f"{name}: the estimator {estimator!r} has no such setting; leave it out")
            draws[name] = None
        rho = RHO[estimator] if rho is None else rho
        hyperparameters = dict(lr=lr, betas=betas, rho=rho, eps=eps, weight_decay=weight_decay)
        shared = dict(every=every, seed=seed, estimator=estimator, warm_start=warm_start, timing=timing, **draws)
        official = dict(official=False, bs=None)
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(params, hyperparameters | shared | official, **settings)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """Sophia's, with or without the warm start."""
        return RULES["sophia-warm" if group["warm_start"] else "sophia"]

    @torch.no_grad()
    def clip_fraction(self) -> float:
        """The share of entries that the clip holds back: ``|m| >= max(rho * h, eps)``, over all parameters.

        It is one minus the win rate of the authors' code, who tune rho until it is between 0.5 and 0.9. NaN before the
        first step.
        """
        clipped, total = 0.0, 0
        for group in self.param_groups:
            measure = self.rule_of(group).measures["clip_fraction"]
            states = [self.state[param] for param in group["params"] if self.state.get(param)]
            found, entries = share(measure, states, self.values_of(group))
            clipped, total = clipped + found, total + entries
        return clipped / total if total else float("nan")


class SophiaH(Sophia):
    r"""Sophia with Hutchinson's estimator (Liu et al., arXiv:2305.14342, Algorithms 1 and 3).

    .. math::
        \hat h_t = u \odot \nabla \langle \nabla L(\theta_t), u \rangle

    with a Rademacher probe u (the paper's are normal, with a strictly larger variance: ``probe="normal"``), the mean
    over ``samples`` probes. ``update_curvature`` needs no logits. The arguments are :class:`Sophia`'s, without
    ``estimator``, ``likelihood`` and ``fraction``.

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> opt = SophiaH([theta], lr=0.1, rho=1.0, betas=(0.0, 0.0), weight_decay=0.0)
    >>> loss = (theta**2 * torch.tensor([2.0, 8.0])).sum() / 2     # Hessian diag(2, 8)
    >>> opt.update_curvature(loss=loss)
    >>> loss.backward()
    >>> _ = opt.step()
    >>> opt.state[theta]["hessian"], theta.data
    (tensor([2., 8.]), tensor([0.9000, 0.9000]))
    """

    def __init__(
        self,
        params: Any,
        lr: float = 6e-4,
        betas: tuple[float, float] = (0.96, 0.99),
        rho: float = 0.01,
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        *,
        every: int = 10,
        samples: int = 1,
        probe: str = "rademacher",
        seed: int = 0,
        warm_start: bool = False,
        timing: str = "paper",
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        draws: dict[str, Any] = dict(
            every=every, samples=samples, probe=probe, seed=seed, warm_start=warm_start, timing=timing
        )
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(params, lr, betas, rho, eps, weight_decay, estimator="hutchinson", **draws, **settings)
