"""AdamW and SGD: the baselines, and the fallback for parameters that a Kronecker method does not cover."""

from __future__ import annotations

from typing import Any

from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.core.rules import RULES
from hessiod.core.sgd import sgd_rule


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
