"""The optimizers that users import: each is a rule, a signature and a docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.adapter import Estimates, RuleOptimizer, apply
from hessiod.backends_torch.curvature import GaussNewtonBartlett, Hutchinson
from hessiod.backends_torch.second_order import CurvatureOptimizer
from hessiod.core.curvature import gnb_kernel, gnb_scalars
from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.core.likelihood import RESIDUALS
from hessiod.core.rule import Hyperparameter, Rule
from hessiod.core.rules import RULES
from hessiod.core.sgd import sgd_rule

OFFICIAL_EPS = 1e-15
BATCH = Hyperparameter(1.0, low=0.0, open_low=True, way_out="give the number of targets that the loss averages")


class Sophia(CurvatureOptimizer):
    """What SophiaG and SophiaH share; see them."""

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """Sophia's, for every group."""
        return RULES["sophia"]

    @torch.no_grad()
    def clip_fraction(self) -> float:
        """The share of entries that the clip holds back: ``|m| >= max(rho * h, eps)``, over all parameters.

        It is one minus the win rate of the authors' code, who tune rho until it is between 0.5 and 0.9. NaN before the
        first step.
        """
        clipped, total = 0.0, 0
        for group in self.param_groups:
            measure, values = self.rule_of(group).measures["clip_fraction"], self.values_of(group)
            for param in group["params"]:
                if state := self.state.get(param):
                    arrays = [state[name] for name in measure.operands]
                    clipped += measure.function(xp, *arrays, **measure.scalars_from(values)).item()
                    total += param.numel()
        return clipped / total if total else float("nan")


class SophiaG(Sophia):
    r"""Sophia with the Gauss-Newton-Bartlett estimator (Liu et al., arXiv:2305.14342, Algorithms 2 and 3).

    .. math::
        \hat h_t = B\,\hat g \odot \hat g, \qquad
        h_t = \beta_2 h_{t-k} + (1 - \beta_2)\,\hat h_t \quad\text{every } k \text{ steps} \\
        m_t = \beta_1 m_{t-1} + (1 - \beta_1)\,g_t \\
        \theta_t = (1 - \eta\lambda)\,\theta_{t-1} - \eta\,\mathrm{clip}(m_t / \max(\rho h_t, \epsilon), 1)

    with :math:`\hat g` the gradient of the mean loss over B targets that are sampled from the model's own output.

    The paper's form is the default. The loop of the authors' code runs too: ``update_hessian()`` after the backward of
    a sampled loss, and ``step(bs=...)``, which reproduces its trajectory: the first k steps are sign steps, and eps is
    1e-15 as there.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: learning rate; about 0.8 of what suits AdamW, says the paper.
        betas: decay rates of the gradient's and of the curvature's average (paper: 0.96, 0.99; authors' code: 0.965).
        rho: the paper's gamma. Larger clips less.
        eps: floor of the denominator.
        weight_decay: decoupled.
        every: steps between two estimates, the paper's k.
        likelihood: of the targets given the output: "categorical", "bernoulli" or "gaussian"
            (:mod:`hessiod.core.likelihood`).
        seed: of the sampled targets.
        maximize, nonfinite, missing: see :class:`~hessiod.backends_torch.adapter.RuleOptimizer`.

    State per parameter, of its shape and dtype: ``exp_avg`` (m) and ``hessian`` (h).

    >>> import torch
    >>> from torch.nn import functional as F
    >>> _ = torch.manual_seed(0)
    >>> model, x, y = torch.nn.Linear(8, 4), torch.randn(32, 8), torch.randint(4, (32,))
    >>> opt = SophiaG(model.parameters(), lr=0.01, every=10)
    >>> before = F.cross_entropy(model(x), y).item()
    >>> for _ in range(20):
    ...     logits = model(x)
    ...     loss = F.cross_entropy(logits, y)
    ...     if opt.curvature_due:                                # step 1, 11, 21, ...
    ...         opt.update_curvature(loss=loss, logits=logits)   # before backward
    ...     loss.backward()
    ...     _ = opt.step()
    ...     opt.zero_grad()
    >>> F.cross_entropy(model(x), y).item() < before
    True
    """

    def __init__(
        self,
        params: Any,
        lr: float = 6e-4,
        betas: tuple[float, float] = (0.96, 0.99),
        rho: float = 0.05,
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        *,
        every: int = 10,
        likelihood: str = "categorical",
        seed: int = 0,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
    ) -> None:
        if likelihood not in RESIDUALS:
            raise InvalidArgument(f"likelihood: found {likelihood!r}, expected one of {', '.join(RESIDUALS)}")
        hyperparameters = dict(lr=lr, betas=betas, rho=rho, eps=eps, weight_decay=weight_decay)
        shared = dict(every=every, likelihood=likelihood, seed=seed, estimator="gauss-newton-bartlett")
        official = dict(official=False, bs=None)
        settings = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        super().__init__(params, hyperparameters | shared | official, **settings)

    # The loop of the authors' code

    @torch.no_grad()
    def update_hessian(self) -> None:
        """Fold the square of the present gradients into h; they are those of a mean loss over sampled targets.

        Their number is given later, to ``step(bs=...)``: in this loop h is the curvature divided by it.
        """
        self._keep_to_official("update_hessian")
        work = list(self._work())
        if not self._finite([grad for *_, grad in work], None):
            return
        for group in self.param_groups:
            group["official"] = True
        for index, param, grad in work:
            group, estimate = self.param_groups[index], gnb_kernel(xp, grad, **gnb_scalars(count=1.0))
            rule = self.rule_of(group)
            assert rule.refresh is not None
            state = self._state(rule, param)
            state["refreshes"] += 1
            apply(rule.refresh, {**state, "estimate": estimate}, {**self.values_of(group), **state})

    def step(self, closure: Callable[[], Any] | None = None, *, bs: float | None = None) -> Any:
        """Take one step.

        Args:
            closure: re-evaluates the model, calls ``backward`` and returns the loss.
            bs: only in the loop of the authors' code: how many targets the mean loss of ``update_hessian`` averages
                (for a language model: tokens).
        """
        if bs is not None:
            self._keep_to_official("step(bs=...)")
            BATCH.check("bs", bs)
        if bs is None and self._official:
            raise InvalidState("step: this run uses update_hessian(); pass bs=, the number of targets in its loss")
        for group in self.param_groups if bs is not None else ():
            group["official"], group["bs"] = True, bs
        return super().step(closure)

    def _keep_to_official(self, call: str) -> None:
        if not self._official and (self.steps or self._pending is not None):
            raise InvalidState(f"{call}: this run uses update_curvature; keep to one of the two loops")

    def _new_estimate(self) -> GaussNewtonBartlett | Hutchinson:
        if self._official:
            raise InvalidState("update_curvature: this run uses update_hessian(); keep to one of the two loops")
        return super()._new_estimate()

    @property
    def _official(self) -> bool:
        return self.param_groups[0]["official"]

    def values_of(self, group: Mapping[str, Any]) -> dict[str, float]:
        """The group's hyperparameters; in the authors' loop, with the batch folded into rho and their eps."""
        values = super().values_of(group)
        if group["bs"] is not None:
            values |= {"rho": values["rho"] * group["bs"], "eps": OFFICIAL_EPS}
        return values

    def _estimates(self) -> Estimates | None:
        return None if self._official else super()._estimates()


class SophiaH(Sophia):
    r"""Sophia with Hutchinson's estimator (Liu et al., arXiv:2305.14342, Algorithms 1 and 3).

    .. math::
        \hat h_t = u \odot \nabla \langle \nabla L(\theta_t), u \rangle

    with a Rademacher probe u (the paper's are normal, with a strictly larger variance); otherwise as
    :class:`SophiaG`. ``update_curvature`` needs no logits. The arguments are SophiaG's, without a likelihood.

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
        seed: int = 0,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
    ) -> None:
        hyperparameters = dict(lr=lr, betas=betas, rho=rho, eps=eps, weight_decay=weight_decay)
        shared = dict(every=every, likelihood=None, seed=seed, estimator="hutchinson")
        settings = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        super().__init__(params, hyperparameters | shared, **settings)


class AdamW(RuleOptimizer):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2), the equations in :mod:`hessiod.core.adamw`.

    The baseline of every comparison and the fallback for parameters that a Kronecker method does not cover. Defaults
    and meaning are ``torch.optim.AdamW``'s.

    State per parameter, of its shape and dtype: ``exp_avg`` and ``exp_avg_sq``.

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
    ) -> None:
        hyperparameters = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, hyperparameters, maximize=maximize, nonfinite=nonfinite, missing=missing)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """AdamW's, for every group."""
        return RULES["adamw"]


class SGD(RuleOptimizer):
    """SGD with momentum or Nesterov's momentum, in the equations of :mod:`hessiod.core.sgd`, like ``torch.optim.SGD``.

    State per parameter: ``momentum_buffer``, of its shape and dtype, in groups with momentum; none in the others.

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
    ) -> None:
        numbers = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        hyperparameters = {**numbers, "nesterov": nesterov}
        super().__init__(params, hyperparameters, maximize=maximize, nonfinite=nonfinite, missing=missing)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """Plain, with momentum or Nesterov's, as the group's hyperparameters say."""
        return sgd_rule(group)


OPTIMIZERS: dict[str, Callable[..., RuleOptimizer]] = {
    "sophia-g": SophiaG,
    "sophia-h": SophiaH,
    "adamw": AdamW,
    "sgd": SGD,
}
"""Classes by their names on the command line."""
