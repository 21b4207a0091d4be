"""THOR for MindSpore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mindspore import nn

from hessiod.backends.kronecker.policies import Trace
from hessiod.backends.kronecker.settings import SHARED, check_pace
from hessiod.backends.numpy import namespace as xp
from hessiod.backends_mindspore.kronecker.optimizer import KroneckerOptimizer
from hessiod.core.kronecker.inverses import BLOCK
from hessiod.core.kronecker.recipes import thor_damping
from hessiod.core.kronecker.trace_rule import THRESHOLDS


class THOR(KroneckerOptimizer):
    r"""THOR, trace-based hardware-driven layer-oriented natural gradient descent (Chen et al., AAAI 2021).

    .. math::
        V = (G + \sqrt\lambda/\pi\,I)^{-1}\,\nabla W\,(A + \pi\sqrt\lambda\,I)^{-1}, \qquad
        b_t = \mu b_{t-1} + \nu V + w W, \quad W \leftarrow W - \eta\, b_t

    with A and G from one batch, inverted in diagonal blocks of 128, and each layer refreshed, kept or frozen for good
    by how much its trace changed (:mod:`hessiod.core.kronecker.trace_rule`). The empirical Fisher matrix by default.

    ``mindspore.nn.thor`` has a fixed frequency and no trace rule: ``thresholds=None, factor_every=frequency``. It has
    no pi, no trust region and scales some factors otherwise; this is the paper's.

    Args:
        net, learning_rate, momentum, nesterov, kl_clip, weight_decay, fisher, likelihood, reduction, inverse, skip,
            fallback, fallback_lr, params, placement, seed, loss_scale,
            nonfinite: as of :class:`~hessiod.mindspore.KFAC`.
        damping: the lambda above, at the first step.
        damping_decay, epoch_steps: ``damping * damping_decay^(epoch / 10)`` with epochs of so many steps; None leaves
            the damping as it is.
        factor_every: steps to the next look at a layer, after a refresh.
        growth, longest: what the interval is multiplied by after each look that keeps, and where it stops.
        thresholds: ``(w1, w2)``: refresh above w1, freeze below w2; None refreshes at every look.
        block_size: of the diagonal blocks; None inverts A and G whole, as K-FAC does.

    State as of :class:`~hessiod.mindspore.KFAC`, and when a layer is looked at next.

    >>> import mindspore as ms, numpy as np
    >>> from mindspore import nn
    >>> from hessiod.mindspore import THOR, TrainStep
    >>> _ = ms.set_seed(0)
    >>> net = nn.Dense(8, 4)
    >>> x = ms.Tensor(np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32))
    >>> y = ms.Tensor(np.arange(64, dtype=np.int32) % 4)
    >>> opt = THOR(net, learning_rate=0.1, damping=0.01)
    >>> step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    >>> losses = [float(step(x, y).asnumpy()) for _ in range(10)]
    >>> losses[-1] < losses[0], opt.checks()
    (True, {'': ('refreshed', 21)})
    """

    policy = Trace(xp)
    counters: ClassVar = {"check": 3}

    def __init__(
        self,
        net: nn.Cell,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        damping: float = 0.03,
        kl_clip: float | None = 1e-3,
        weight_decay: Any = 0.0,
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
        fallback_lr: Any = 1e-3,
        params: Any = None,
        placement: str = "owner",
        seed: int = 0,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        check_pace(damping_decay, growth, epoch_steps)
        step: dict[str, Any] = dict(momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
        trust: dict[str, Any] = dict(damping=damping, kl_clip=kl_clip)
        schedule: dict[str, Any] = dict(damping_decay=damping_decay, epoch_steps=epoch_steps)
        pace: dict[str, Any] = dict(factor_every=factor_every, growth=growth, longest=longest, thresholds=thresholds)
        source: dict[str, Any] = dict(fisher=fisher, likelihood=likelihood, reduction=reduction, seed=seed)
        other: dict[str, Any] = dict(inverse=inverse, block_size=block_size, fallback=fallback, fallback_lr=fallback_lr)
        settings = {**SHARED, **step, **trust, **schedule, **pace, **source, **other}
        users: dict[str, Any] = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(net, learning_rate, settings, skip=skip, params=params, placement=placement, **users)

    def prepare(self) -> None:
        """The damping of the coming step."""
        if self.settings["epoch_steps"] is not None:
            epoch = self.steps / self.settings["epoch_steps"]
            self.damping = thor_damping(epoch, damping=self.settings["damping"], decay=self.settings["damping_decay"])

    def checks(self) -> dict[str, tuple[str, int | None]]:
        """What was last found of each layer ("refreshed", "kept" or "frozen"), and the step it is looked at next."""
        found: dict[str, tuple[str, int | None]] = {}
        for layer, state in self.states.items():
            following, interval, _ = state.numbers().get("check", (1, 0, None))
            kept = interval > self.settings["factor_every"]
            found[layer.name] = ("frozen" if following is None else "kept" if kept else "refreshed", following)
        return found
