"""SP-NGD for MindSpore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import mindspore as ms
from mindspore import Tensor, nn, ops

from hessiod.backends.kronecker.policies import Stale
from hessiod.backends.kronecker.settings import SHARED, check_recipe
from hessiod.backends.numpy import namespace as np_xp
from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.kronecker.layers import Convolution, Layer
from hessiod.backends_mindspore.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_mindspore.schedule import doubles
from hessiod.core.kronecker.damping import warmed_up
from hessiod.core.kronecker.heavy_ball import HEAVY_BALL, rescaled
from hessiod.core.kronecker.recipes import coupled_momentum
from hessiod.core.rule import Rule


class SPNGD(KroneckerOptimizer):
    r"""SP-NGD, scalable and practical natural gradient descent (Osawa et al., arXiv:2002.06015).

    .. math::
        V = (G + \sqrt\lambda/\pi\,I)^{-1}\,\nabla W\,(A + \pi\sqrt\lambda\,I)^{-1}, \qquad
        v_t = \mu_t v_{t-1} - \eta_t (\nu V + w W), \quad W \leftarrow W + v_t

    with the empirical Fisher matrix, unit-wise 2 x 2 blocks for normalisation layers, and statistics without an
    average, each refreshed at an interval of its own (:mod:`hessiod.core.kronecker.stale`): while it changes by less
    than ``alpha`` its intervals grow like Fibonacci's numbers, and when it changes they are halved.

    Args:
        net, damping, kl_clip, weight_decay, fisher, likelihood, reduction, inverse, block_size, skip, fallback,
            fallback_lr, params, placement, seed, loss_scale, nonfinite: as of :class:`~hessiod.mindspore.KFAC`.
        learning_rate: as there. The recipe lowers it as :func:`hessiod.core.kronecker.recipes.polynomial_lr` does.
        momentum: of the velocity; its value at the first learning rate where ``couple_momentum`` is set.
        alpha: the relative change from which a statistic is not similar to an earlier one.
        couple_momentum: let momentum fall with the learning rate, ``momentum * lr_t / lr``; not where the first is 0.
        damping_start, damping_steps: begin with this damping and lower it to ``damping`` over so many steps.
        rescale: patterns of layer names whose weight is scaled back to the norm ``sqrt(2 * out)`` after each step where
            it is longer; for layers that a normalisation follows. ``["*"]`` is all Dense and Conv layers.

    State as of :class:`~hessiod.mindspore.KFAC`, and the statistic before the last one, with its intervals.

    >>> import mindspore as ms, numpy as np
    >>> from mindspore import nn
    >>> from hessiod.mindspore import SPNGD, TrainStep
    >>> _ = ms.set_seed(0)
    >>> net = nn.Dense(8, 4)
    >>> x = ms.Tensor(np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32))
    >>> y = ms.Tensor(np.arange(64, dtype=np.int32) % 4)
    >>> opt = SPNGD(net, learning_rate=0.1, damping=0.01)
    >>> step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    >>> losses = [float(step(x, y).asnumpy()) for _ in range(10)]
    >>> losses[-1] < losses[0]
    True
    """

    policy = Stale(np_xp)
    keeps_earlier = True
    counters: ClassVar = {}

    def __init__(
        self,
        net: nn.Cell,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        damping: float = 1e-3,
        kl_clip: float | None = 1e-3,
        weight_decay: Any = 0.0,
        *,
        alpha: float = 0.1,
        couple_momentum: bool = False,
        damping_start: float | None = None,
        damping_steps: int = 0,
        rescale: Sequence[str] = (),
        fisher: str = "empirical",
        likelihood: str = "categorical",
        reduction: str = "mean",
        inverse: str = "cholesky",
        block_size: int | None = None,
        skip: Sequence[str] = (),
        fallback: str = "adamw",
        fallback_lr: Any = 1e-3,
        params: Any = None,
        placement: str = "owner",
        seed: int = 0,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        check_recipe(damping_start, damping_steps, rescale)
        step: dict[str, Any] = dict(momentum=momentum, weight_decay=weight_decay, damping=damping, alpha=alpha)
        recipe: dict[str, Any] = dict(damping_start=damping_start, damping_steps=damping_steps, kl_clip=kl_clip)
        source: dict[str, Any] = dict(fisher=fisher, likelihood=likelihood, reduction=reduction, seed=seed)
        other: dict[str, Any] = dict(inverse=inverse, block_size=block_size, fallback=fallback, fallback_lr=fallback_lr)
        settings = {**SHARED, **step, **recipe, **source, **other}
        users: dict[str, Any] = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(net, learning_rate, settings, skip=skip, params=params, placement=placement, **users)
        self.couple_momentum, self.rescale = couple_momentum, tuple(rescale)
        rates = [self._first_rate(group) for group in range(self.group_count)]
        self.coupled = tuple(couple_momentum and rate != 0.0 for rate in rates)
        self.first_rates = tuple(Tensor(rate, ms.float64) for rate in rates)
        wanted = {id(layer.params[0]) for layer in self.layers if matches(layer, rescale)}
        self.rescaled = tuple(id(param) in wanted for param in self.parameters)
        self.lengths = tuple(param.shape[0] for param in self.parameters)

    def _first_rate(self, group: int) -> float:
        """The learning rate of a group's first step."""
        rate = self.learning_rate[self.group_places[group]] if self.is_group_lr else self.learning_rate
        known = float(doubles(self.group_rates.tables[group])[0])
        if known != known:
            known = float(rate(Tensor([0], ms.int32)).asnumpy())
        return known

    def layer_counters(self, layer: Layer) -> Mapping[str, int]:
        """Three numbers for every statistic."""
        return {f"interval_{name}": 3 for name in layer.statistics}

    def covered_rule(self, settings: Mapping[str, Any]) -> tuple[Rule, dict[str, float]]:
        """The velocity form of momentum."""
        return HEAVY_BALL, {"momentum": settings["momentum"]}

    def group_values(self, group):
        """The group's hyperparameters, with momentum coupled to the learning rate where that was chosen."""
        values = super().group_values(group)
        if self.coupled[group]:
            first = self.first_rates[group]
            values["momentum"] = coupled_momentum(values["lr"], first_lr=first, momentum=values["momentum"])
        return values

    def moved(self):
        """Scale weights back that are too long."""
        for param, chosen, length, dtype in zip(  # noqa: B905 - strict= cannot be traced
            self.parameters, self.rescaled, self.lengths, self.working_dtypes
        ):
            if chosen:
                ops.assign(param, ops.cast(rescaled(xp, ops.cast(param, dtype), out=length), param.dtype))
        return True

    def prepare(self) -> None:
        """The damping of the coming step."""
        if self.settings["damping_steps"]:
            start, steps = self.settings["damping_start"], self.settings["damping_steps"]
            self.damping = warmed_up(self.settings["damping"], start, steps, self.steps + 1)


def matches(layer: Layer, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the layer's name, of a Dense or Conv layer."""
    return type(layer) in (Layer, Convolution) and any(fnmatchcase(layer.name, pattern) for pattern in patterns)
