"""THOR for PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from hessiod.backends.kronecker.settings import check_pace
from hessiod.backends_torch.kronecker.groups import arguments
from hessiod.backends_torch.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_torch.kronecker.policies import Trace
from hessiod.core.kronecker.inverses import BLOCK
from hessiod.core.kronecker.recipes import thor_damping
from hessiod.core.kronecker.trace_rule import THRESHOLDS


class THOR(KroneckerOptimizer):
    r"""THOR, trace-based hardware-driven layer-oriented natural gradient descent (Chen et al., AAAI 2021).

    .. math::
        V = (G + \sqrt\lambda/\pi\,I)^{-1}\,\nabla W\,(A + \pi\sqrt\lambda\,I)^{-1}, \qquad
        b_t = \mu b_{t-1} + \nu V + w W, \quad W \leftarrow W - \eta\, b_t

    with A and G from one batch, inverted in diagonal blocks of 128, and each layer refreshed, kept or frozen for good
    by how much its trace changed (:mod:`hessiod.core.kronecker.trace_rule`). The empirical Fisher matrix by default: a
    plain loop needs no extra call.

    ``nn.thor`` of MindSpore has a fixed frequency and no trace rule: ``thresholds=None, factor_every=frequency``. It
    has no pi, no trust region and scales some factors otherwise; this is the paper's.

    Args:
        model: the module whose layers are hooked.
        lr, momentum, nesterov, kl_clip, weight_decay, fisher, likelihood, reduction, inverse, skip, fallback,
            fallback_lr, params, grad_scaler, process_group,
            placement, overlap, seed, maximize, nonfinite, missing: as of :class:`~hessiod.torch.KFAC`.
        damping: the lambda above, at the first step.
        damping_decay, epoch_steps: ``damping * damping_decay^(epoch / 10)`` with epochs of so many steps; None leaves
            the damping as it is.
        factor_every: steps to the next look at a layer, after a refresh.
        growth, longest: what the interval is multiplied by after each look that keeps, and where it stops.
        thresholds: ``(w1, w2)``: refresh above w1, freeze below w2; None refreshes at every look.
        block_size: of the diagonal blocks; None inverts A and G whole, as K-FAC does.

    State as of :class:`~hessiod.torch.KFAC`, and when a layer is looked at next.

    >>> import torch
    >>> from torch.nn import functional as F
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    >>> x, y = torch.randn(64, 8), torch.randint(4, (64,))
    >>> opt = THOR(model, lr=0.1, damping=0.01)
    >>> before = F.cross_entropy(model(x), y).item()
    >>> for _ in range(20):
    ...     F.cross_entropy(model(x), y).backward()
    ...     _ = opt.step()
    ...     opt.zero_grad()
    >>> F.cross_entropy(model(x), y).item() < 0.8 * before
    True
    >>> opt.checks()
    {'0': ('refreshed', 21), '2': ('refreshed', 21)}
    """

    policy = Trace()

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.1,
        momentum: float = 0.9,
        damping: float = 0.03,
        kl_clip: float | None = 1e-3,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
        damping_decay: float = 1.0,
        epoch_steps: int | None = None,
        factor_every: int = 20,
        growth: float = 2.0,
        longest: int = 1000,
        thresholds: tuple[float, float] | None = THRESHOLDS,
        fisher: str = "empirical",
        likelihood: str = "categorical",
        reduction: str = "mean",
        inverse: str = "cholesky",
        block_size: int | None = BLOCK,
        skip: Sequence[str] = (),
        fallback: str = "adamw",
        fallback_lr: float = 1e-3,
        params: Any = None,
        grad_scaler: Any = None,
        process_group: Any = None,
        placement: str = "owner",
        overlap: bool = False,
        seed: int = 0,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
    ) -> None:
        given = arguments(locals())
        check_pace(damping_decay, growth, epoch_steps)
        super().__init__(model, params, {**given, "first_damping": damping})

    def _step(self) -> None:
        group = self.param_groups[0]
        if group["epoch_steps"] is not None:
            epoch = self.steps / group["epoch_steps"]
            self.damping = thor_damping(epoch, damping=group["first_damping"], decay=group["damping_decay"])
        super()._step()

    def checks(self) -> dict[str, tuple[str, int | None]]:
        """What was last found of each layer ("refreshed", "kept" or "frozen"), and the step it is looked at next."""
        found: dict[str, tuple[str, int | None]] = {}
        for layer in self.layers:
            following, interval, _ = self.layer_state(layer).get("check", (1, 0, None))
            kept = interval > self.param_groups[0]["factor_every"]
            found[layer.name] = ("frozen" if following is None else "kept" if kept else "refreshed", following)
        return found
