"""The optimizers that users import: each is a rule, a signature and a docstring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.second_order import CurvatureOptimizer
from hessiod.core.errors import InvalidArgument
from hessiod.core.likelihood import RESIDUALS
from hessiod.core.rules import RULES
from hessiod.core.sgd import sgd_rule


class Sophia(CurvatureOptimizer):
    """What SophiaG and SophiaH share; see them."""

    @ms.jit
    def clipped(self):
        """How many entries the clip holds back."""
        total = ops.zeros((), ms.float64)
        for m, h, group in zip(self.exp_avg, self.hessian, self.group_of):  # noqa: B905 - strict= cannot be traced
            scalars = self.group_scalars(self.clip_scalars, self.clip_hyperparameters, group)
            total = total + ops.cast(self.clip_kernel(xp, m, h, **scalars), ms.float64)
        return total

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(RULES["sophia"], *arguments, **options)
        measure = RULES["sophia"].measures["clip_fraction"]
        self.clip_kernel, self.clip_scalars = measure.function, measure.scalars
        self.clip_hyperparameters = measure.hyperparameters

    def clip_fraction(self) -> float:
        """The share of entries that the clip holds back: ``|m| >= max(rho * h, eps)``, over all parameters.

        It is one minus the win rate of the authors' code, who tune rho until it is between 0.5 and 0.9. NaN before the
        first step.
        """
        if self.steps == 0:
            return float("nan")
        return float(self.clipped().asnumpy()) / sum(param.size for param in self.parameters)


class SophiaG(Sophia):
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
    ) -> None:
        if likelihood not in RESIDUALS:
            raise InvalidArgument(f"likelihood: found {likelihood!r}, expected one of {', '.join(RESIDUALS)}")
        hyperparameters = dict(beta1=beta1, beta2=beta2, rho=rho, eps=eps)
        shared = dict(estimator="gauss-newton-bartlett", every=every, seed=seed, likelihood=likelihood)
        settings = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(params, learning_rate, hyperparameters, **shared, **settings)


class SophiaH(Sophia):
    r"""Sophia with Hutchinson's estimator (Liu et al., arXiv:2305.14342, Algorithms 1 and 3).

    .. math::
        \hat h_t = u \odot \nabla \langle \nabla L(\theta_t), u \rangle

    with a Rademacher probe u (the paper's are normal, with a strictly larger variance); otherwise as
    :class:`SophiaG`. Operators whose second derivative MindSpore has wrong are refused by name. The arguments are
    SophiaG's, without a likelihood.
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
    ) -> None:
        hyperparameters = dict(beta1=beta1, beta2=beta2, rho=rho, eps=eps)
        settings = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(
            params, learning_rate, hyperparameters, estimator="hutchinson", every=every, seed=seed, **settings
        )


class AdamW(RuleOptimizer):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101, Algorithm 2), the equations in :mod:`hessiod.core.adamw`.

    State per parameter, of its shape and dtype: ``exp_avg`` and ``exp_avg_sq``.

    >>> import mindspore as ms
    >>> theta = ms.Parameter(ms.Tensor([1.0, 2.0]), name="theta")
    >>> opt = AdamW([theta], learning_rate=0.5, weight_decay=0.0)
    >>> opt((ms.Tensor([3.0, -4.0]),))
    True
    >>> theta.asnumpy()
    array([0.5, 2.5], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: Any = 1e-2,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        hyperparameters = dict(beta1=beta1, beta2=beta2, eps=eps)
        super().__init__(RULES["adamw"], params, learning_rate, hyperparameters, weight_decay, loss_scale, nonfinite)


class SGD(RuleOptimizer):
    """SGD with momentum or Nesterov's momentum, the equations in :mod:`hessiod.core.sgd`.

    The weight decay is L2: it is added to the gradient. State per parameter: ``momentum_buffer`` where momentum is not
    zero, otherwise none.

    >>> import mindspore as ms
    >>> theta = ms.Parameter(ms.Tensor([1.0]), name="theta")
    >>> opt = SGD([theta], learning_rate=0.25, momentum=0.5)
    >>> for _ in range(2):
    ...     _ = opt((ms.Tensor([1.0]),))
    >>> theta.asnumpy()
    array([0.375], dtype=float32)
    """

    def __init__(
        self,
        params: Any,
        learning_rate: Any = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: Any = 0.0,
        nesterov: bool = False,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        rule = sgd_rule({"momentum": momentum, "dampening": dampening, "nesterov": nesterov})
        given = {"momentum": momentum, "dampening": dampening}
        hyperparameters = {name: value for name, value in given.items() if name in rule.hyperparameters}
        super().__init__(rule, params, learning_rate, hyperparameters, weight_decay, loss_scale, nonfinite)


OPTIMIZERS: dict[str, Callable[..., RuleOptimizer]] = {
    "sophia-g": SophiaG,
    "sophia-h": SophiaH,
    "adamw": AdamW,
    "sgd": SGD,
}
"""Classes by their names on the command line."""
