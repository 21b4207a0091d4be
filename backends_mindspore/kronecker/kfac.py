"""K-FAC for MindSpore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mindspore import nn

from hessiod.backends.kronecker.policies import Fixed
from hessiod.backends.kronecker.settings import SHARED
from hessiod.backends.numpy import namespace as xp
from hessiod.backends_mindspore.kronecker.optimizer import KroneckerOptimizer


class KFAC(KroneckerOptimizer):
    r"""K-FAC (Martens and Grosse, arXiv:1503.05671; for convolutions Grosse and Martens, arXiv:1602.01407).

    .. math::
        A = \mathbb E[a a'],\quad G = \mathbb E[g g'], \qquad
        V = (G + \sqrt\lambda/\pi\,I)^{-1}\,\nabla W\,(A + \pi\sqrt\lambda\,I)^{-1} \\
        \nu = \min\Big(1, \sqrt{\kappa / \textstyle\sum \eta^2 \langle V, \nabla W\rangle}\Big), \qquad
        b_t = \mu b_{t-1} + \nu V + w W, \quad W \leftarrow W - \eta\, b_t

    over the layers of ``net``: Dense, Conv1d to 3d, Embedding, and by 2 x 2 blocks BatchNorm, LayerNorm, GroupNorm.
    Other parameters follow ``fallback``; see :meth:`plan`. It trains through :class:`~hessiod.mindspore.TrainStep`.

    Args:
        net: the net whose layers are covered, the one that the TrainStep gets.
        learning_rate: a number, a list or 1-D Tensor with one entry a step, or a ``LearningRateSchedule``; in the step
            and in the trust region.
        momentum, nesterov: of the step, as in ``torch.optim.SGD``.
        damping: the lambda above. It does not depend on the batch's size.
        kl_clip: the kappa above, the bound on a step's KL divergence; None for none, which is likely to diverge.
        weight_decay: added to the natural gradient, before momentum; a number, or a Cell of the step.
        factor_every, inverse_every: steps between statistics, and between inverses; the first two are inverted at once.
        factor_decay: of the running average of A and G; the first refreshes are averaged evenly.
        fisher: "monte-carlo" samples targets from the net's output; "empirical" takes the training loss's gradients.
        likelihood: of the targets given the output: "categorical", "bernoulli" or "gaussian".
        reduction: what the loss does with its targets: "mean" over all that are not ignored (rows of classes, or
            entries), "batchmean" (the sum over the length of the first axis) or "sum".
        inverse: "cholesky" or "eigen", on the host, or "newton-schulz", on the device; one matrix by three methods.
        block_size: invert A and G in diagonal blocks of this size; None inverts them whole.
        skip: patterns of Cell names or class names, with ``*``, that are left to the fallback.
        fallback, fallback_lr: "adamw" or "sgd" (with ``momentum``) and its learning rate, in any form of
            ``learning_rate``: unlike PyTorch's schedulers, that one does not reach it.
        params: parameters or groups of the net to train, with their own lr and weight_decay; all by default.
        adapt_every: Levenberg-Marquardt damping (Martens and Grosse, section 6.5): every so many steps the TrainStep
            takes the loss of the step's batch again, and damping follows how well the change was predicted. Nets
            that draw (Dropout) draw anew for it. None for none.
        placement: on several processes, who inverts a layer: its "owner" (layers spread by cost), "every" process, or
            "one". All hold all factors and inverses.
        seed: of the sampled targets.
        loss_scale, nonfinite: see :class:`~hessiod.backends_mindspore.adapter.RuleOptimizer`.

    State, in float32 or wider, as Parameters for ``mindspore.save_checkpoint``: ``factor_a`` ``[in, in]``, ``factor_g``
    ``[out, out]``, their inverses in blocks, counters; ``momentum_buffer`` for every covered parameter.

    >>> import mindspore as ms, numpy as np
    >>> from mindspore import nn
    >>> from hessiod.mindspore import KFAC, TrainStep
    >>> _ = ms.set_seed(0)
    >>> net = nn.Dense(8, 4)
    >>> x = ms.Tensor(np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32))
    >>> y = ms.Tensor(np.arange(64, dtype=np.int32) % 4)
    >>> opt = KFAC(net, learning_rate=0.1, factor_every=5, inverse_every=5)
    >>> step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    >>> losses = [float(step(x, y).asnumpy()) for _ in range(10)]
    >>> losses[-1] < losses[0], opt.steps
    (True, 10)
    >>> print(opt.plan())
    parameter  shape  treatment  detail
    weight     4 x 8  KFAC       linear, A 9 x 9, G 4 x 4
    bias       4      KFAC       linear, A 9 x 9, G 4 x 4
    """

    policy = Fixed(xp)
    counters: ClassVar = {"refreshes": 0}

    def __init__(
        self,
        net: nn.Cell,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        damping: float = 1e-3,
        kl_clip: float | None = 1e-3,
        weight_decay: Any = 0.0,
        *,
        nesterov: bool = False,
        factor_every: int = 5,
        inverse_every: int = 20,
        factor_decay: float = 0.95,
        fisher: str = "monte-carlo",
        likelihood: str = "categorical",
        reduction: str = "mean",
        inverse: str = "cholesky",
        block_size: int | None = None,
        skip: Sequence[str] = (),
        fallback: str = "adamw",
        fallback_lr: Any = 1e-3,
        params: Any = None,
        adapt_every: int | None = None,
        placement: str = "owner",
        seed: int = 0,
        loss_scale: float = 1.0,
        nonfinite: str = "raise",
    ) -> None:
        step: dict[str, Any] = dict(momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
        trust: dict[str, Any] = dict(damping=damping, kl_clip=kl_clip)
        pace: dict[str, Any] = dict(factor_every=factor_every, inverse_every=inverse_every, factor_decay=factor_decay)
        source: dict[str, Any] = dict(fisher=fisher, likelihood=likelihood, reduction=reduction, seed=seed)
        other: dict[str, Any] = dict(inverse=inverse, block_size=block_size, fallback=fallback, fallback_lr=fallback_lr)
        settings = {**SHARED, **step, **trust, **pace, **source, **other}
        if adapt_every is not None:
            settings["adapt_every"] = adapt_every
        users: dict[str, Any] = dict(weight_decay=weight_decay, loss_scale=loss_scale, nonfinite=nonfinite)
        super().__init__(net, learning_rate, settings, skip=skip, params=params, placement=placement, **users)
        self.adapt_every = adapt_every
