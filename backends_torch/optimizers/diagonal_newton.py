"""DiagonalNewton."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessiod.backends_torch.second_order import CurvatureOptimizer
from hessiod.core.diagonal_newton import diagonal_newton_rule
from hessiod.core.rule import Rule
from hessiod.core.settings import check_settings


class DiagonalNewton(CurvatureOptimizer):
    r"""The gradient divided by an average of the Hessian's diagonal, made safe (:mod:`hessiod.core.diagonal_newton`).

    .. math::
        h_t = \beta h_{t-k} + (1 - \beta)\,u \odot \nabla \langle \nabla L(\theta_t), u \rangle
        \quad\text{every } k \text{ steps} \\
        \theta_t = (1 - \eta\lambda)\,\theta_{t-1} - \eta\,\frac{g_t}{|h_t / (1 - \beta^n)|^{\,p} + \mu}

    The textbooks' diagonal Newton step, with Hutchinson's estimate (arXiv:2305.14342, Algorithm 1), its bias corrected
    by the number n of curvature updates. They divide by h itself, which climbs where h is negative and blows up near 0;
    here the absolute value makes it descend at a saddle, and the damping bounds the step.

    Args:
        params: parameters or groups, as for every torch optimizer.
        lr: learning rate; 1 is Newton's step. ``OneCycleLR`` needs ``cycle_momentum=False``: there is no momentum.
        beta: decay rate of the curvature's average.
        damping: the mu above; larger is nearer to SGD with the rate lr / damping.
        weight_decay: decoupled.
        power: the p above, 1 (Newton) or 0.5 (gentler).
        num_vectors: probes of each estimate; the groups call them ``samples``.
        every: steps between two estimates.
        probe: "rademacher" or "normal".
        seed: of the probes.
        maximize, nonfinite, missing, capturable, clip_grad: see :class:`~hessiod.backends_torch.adapter.RuleOptimizer`.

    State per parameter, of its shape: ``hessian`` (h).

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> opt = DiagonalNewton([theta], lr=0.5, damping=1e-8)
    >>> loss = (theta**2 * torch.tensor([2.0, -8.0])).sum() / 2    # a saddle: Hessian diag(2, -8)
    >>> opt.update_curvature(loss=loss)
    >>> loss.backward()
    >>> _ = opt.step()
    >>> theta.data                                                 # down to it along one axis, away along the other
    tensor([0.5000, 1.5000])
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        beta: float = 0.9,
        damping: float = 1e-3,
        weight_decay: float = 0.0,
        power: float = 1,
        num_vectors: int = 1,
        *,
        every: int = 1,
        probe: str = "rademacher",
        seed: int = 0,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
        capturable: bool = False,
        clip_grad: float | None = None,
    ) -> None:
        check_settings({"num_vectors": num_vectors})
        numbers = dict(lr=lr, beta=beta, damping=damping, weight_decay=weight_decay, power=power)
        shared = dict(every=every, samples=num_vectors, probe=probe, seed=seed, estimator="hutchinson")
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(params, {**numbers, **shared}, **settings)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """With power 1 or 0.5, as the group says."""
        return diagonal_newton_rule(group)
