"""SophiaG, and the loop of its authors' code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.adapter import Estimates
from hessiod.backends_torch.curvature import GaussNewtonBartlett, Hutchinson
from hessiod.backends_torch.op_by_op import eagerly
from hessiod.backends_torch.optimizers.sophia import Sophia
from hessiod.backends_torch.precision import widened
from hessiod.backends_torch.second_order import CurvatureOptimizer, scaler_forgotten_on_error
from hessiod.core.curvature import gnb_kernel, gnb_scalars
from hessiod.core.errors import InvalidState
from hessiod.core.rule import Hyperparameter

OFFICIAL_EPS = 1e-15
BATCH = Hyperparameter(1.0, low=0.0, open_low=True, way_out="give the number of targets that the loss averages")


class SophiaG(Sophia):
    r"""Sophia with the Gauss-Newton-Bartlett estimator (Liu et al., arXiv:2305.14342, Algorithms 2 and 3).

    .. math::
        \hat h_t = B\,\hat g \odot \hat g

    with :math:`\hat g` the gradient of the mean loss over B targets that are sampled from the model's own output.

    The paper's form is the default. The loop of the authors' code runs too: ``update_hessian()`` after the backward of
    a sampled loss, and ``step(bs=...)``, which reproduces its trajectory: the first k steps are sign steps, and eps is
    1e-15 as there.

    The arguments are :class:`Sophia`'s, without ``estimator``, ``samples`` and ``probe``.

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
        fraction: float = 1.0,
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
            every=every, likelihood=likelihood, fraction=fraction, seed=seed, warm_start=warm_start, timing=timing
        )
        settings: dict[str, Any] = dict(maximize=maximize, nonfinite=nonfinite, missing=missing)
        settings |= dict(capturable=capturable, clip_grad=clip_grad)
        super().__init__(
            params, lr, betas, rho, eps, weight_decay, estimator="gauss-newton-bartlett", **draws, **settings
        )

    # The loop of the authors' code

    @torch.no_grad()
    def update_hessian(self) -> None:
        """Fold the square of the present gradients into h; they are those of a mean loss over sampled targets.

        With a GradScaler they must be unscaled.

        Their number is given later, to ``step(bs=...)``: in this loop h is the curvature divided by it.
        """
        self._keep_to_official("update_hessian")
        work = self._work()
        if not self._finite([members.grads for members in work], None):
            return
        for group in self.param_groups:
            group["official"] = True
        for members in work:
            group = self.param_groups[members.group]
            rule = self.rule_of(group)
            assert rule.refresh is not None
            for param, grad in members.pairs():
                estimate = gnb_kernel(xp, widened(grad), **gnb_scalars(count=1.0))
                state = self._state(rule, param)
                state["refreshes"] += 1
                eagerly((rule.refresh,), {**state, "estimate": estimate}, {**self.values_of(group), **state})

    def step(self, closure: Callable[[], Any] | None = None, *, bs: float | None = None) -> Any:
        """Take one step.

        Args:
            closure: re-evaluates the model, calls ``backward`` and returns the loss.
            bs: only in the loop of the authors' code: how many targets the mean loss of ``update_hessian`` averages
                (for a language model: tokens).
        """
        with scaler_forgotten_on_error(self):
            if bs is not None:
                self._keep_to_official("step(bs=...)")
                BATCH.check("bs", bs)
            if bs is None and self._official:
                raise InvalidState("step: this run uses update_hessian(); pass bs=, the number of targets in its loss")
        for group in self.param_groups if bs is not None else ():
            group["official"], group["bs"] = True, bs
        # Not super().step: torch wraps the step of every class that has instances, and hooks would run twice.
        return CurvatureOptimizer.step(self, closure)

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

    def values_of(self, group: Mapping[str, Any], number: Callable[[Tensor], Any] = Tensor.item) -> dict[str, Any]:
        """The group's hyperparameters; in the authors' loop, with the batch folded into rho and their eps."""
        values = super().values_of(group, number)
        if group["bs"] is not None:
            values |= {"rho": values["rho"] * group["bs"], "eps": OFFICIAL_EPS}
        return values

    def _estimates(self) -> Estimates | None:
        return None if self._official else super()._estimates()
