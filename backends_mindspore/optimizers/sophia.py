"""Sophia with either of its estimators."""

from __future__ import annotations

from typing import Any

from hessiod.backends_mindspore.second_order import CurvatureOptimizer, GaussNewtonOptimizer, HutchinsonOptimizer
from hessiod.core.rules import RULES
from hessiod.core.settings import check_settings


class ClipFraction(CurvatureOptimizer):
    """Reports how many entries Sophia's clip holds back."""

    def __init__(
        self,
        params: Any,
        learning_rate: Any,
        hyperparameters: dict[str, float],
        *,
        every: int,
        warm_start: bool,
        timing: str,
        **settings: Any,
    ) -> None:
        check_settings({"timing": timing, "warm_start": warm_start})
        rule = RULES["sophia-warm" if warm_start else "sophia"]
        first = every if timing == "official" else 0
        super().__init__(rule, params, learning_rate, hyperparameters, every=every, first=first, **settings)

    def clip_fraction(self) -> float:
        """The share of entries that the clip holds back: ``|m| >= max(rho * h, eps)``, over all parameters.

        It is one minus the win rate of the authors' code, who tune rho until it is between 0.5 and 0.9. NaN before the
        first step.
        """
        if self.steps == 0:
            return float("nan")
        return float(self.measurements().sum()) / sum(param.size for param in self.parameters)


class SophiaG(ClipFraction, GaussNewtonOptimizer):
    r"""Sophia with the Gauss-Newton-Bartlett estimator (Liu et al., arXiv:2305.14342, Algorithms 2 and 3).

    .. math::
        \hat h_t = B\,\hat g \odot \hat g, \qquad
        h_t = \beta_2 h_{t-k} + (1 - \beta_2)\,\hat h_t \quad\text{every } k \text{ steps} \\
        m_t = \beta_1 m_{t-1} + (1 - \beta_1)\,g_t \\
        \theta_t = (1 - \eta\lambda)\,\theta_{t-1} - \eta\,\mathrm{clip}(m_t / \max(\rho h_t, \epsilon), 1)

    with :math:`\hat g` the gradient of the mean loss over B targets that are sampled from the model's own output. Train
    with :class:`TrainStep`, where an example is.

    Args:
        params: parameters, or groups with "params", "lr", "weight_decay", "order_params".
        learning_rate: a number, a list, a Tensor or a schedule Cell; about 0.8 of what suits AdamW, says the paper.
        beta1, beta2: decay rates of the gradient's and of the curvature's average.
        rho: the paper's gamma. Larger clips less.
        eps: floor of the denominator.
        weight_decay: decoupled; a number or a Cell.
        every: steps between two estimates, the paper's k.
        likelihood: of the targets given the output: "categorical", "bernoulli" or "gaussian"
            (:mod:`hessiod.core.likelihood`).
        fraction: leading share of the examples whose targets are sampled; the paper uses half a batch.
        warm_start: take the first estimate whole, so that h starts at its right size.
        timing: "paper" estimates at steps 1, 1 + every, ...; "official" as the authors' code, first after ``every``
            steps, which are sign steps.
        seed: of the sampled targets.
        loss_scale, nonfinite: see :class:`~hessiod.backends_mindspore.adapter.RuleOptimizer`.

    State per parameter, of its shape and dtype: ``exp_avg`` (m) and ``hessian`` (h).
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 6e-4,
        beta1: float = 0.96,
        beta2: float = 0.99,
        rho: float = 0.05,
        eps: float = 1e-12,
        weight_decay: Any = 0.1,
        every: int = 10,
        likelihood: str = "categorical",
        seed: int = 0,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
        fraction: float = 1.0,
        warm_start: bool = False,
        timing: str = "paper",
    ) -> None:
        hyperparameters = dict(beta1=beta1, beta2=beta2, rho=rho, eps=eps)
        schedule: dict[str, Any] = dict(every=every, warm_start=warm_start, timing=timing)
        estimate: dict[str, Any] = dict(likelihood=likelihood, fraction=fraction, seed=seed)
        settings: dict[str, Any] = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(params, learning_rate, hyperparameters, **schedule, **estimate, **settings)


class SophiaH(ClipFraction, HutchinsonOptimizer):
    r"""Sophia with Hutchinson's estimator (Liu et al., arXiv:2305.14342, Algorithms 1 and 3).

    .. math::
        \hat h_t = u \odot \nabla \langle \nabla L(\theta_t), u \rangle

    averaged over ``samples`` probes u, Rademacher by default (the paper's, ``probe="normal"``, have a strictly larger
    variance); otherwise as
    :class:`SophiaG`. Operators whose second derivative MindSpore has wrong are refused by name. The arguments are
    SophiaG's, with ``probe`` and ``samples`` in the place of ``likelihood`` and ``fraction``.
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 6e-4,
        beta1: float = 0.96,
        beta2: float = 0.99,
        rho: float = 0.01,
        eps: float = 1e-12,
        weight_decay: Any = 0.1,
        every: int = 10,
        seed: int = 0,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
        probe: str = "rademacher",
        samples: int = 1,
        warm_start: bool = False,
        timing: str = "paper",
    ) -> None:
        hyperparameters = dict(beta1=beta1, beta2=beta2, rho=rho, eps=eps)
        schedule: dict[str, Any] = dict(every=every, warm_start=warm_start, timing=timing)
        estimate: dict[str, Any] = dict(probe=probe, samples=samples, seed=seed)
        settings: dict[str, Any] = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(params, learning_rate, hyperparameters, **schedule, **estimate, **settings)


def Sophia(params: Any, *arguments: Any, estimator: str = "gauss-newton-bartlett", **options: Any) -> ClipFraction:
    """:class:`SophiaG` or :class:`SophiaH`, by the name of the estimator: "gauss-newton-bartlett" or "hutchinson"."""
    check_settings({"estimator": estimator})
    chosen = SophiaG if estimator == "gauss-newton-bartlett" else SophiaH
    return chosen(params, *arguments, **options)
