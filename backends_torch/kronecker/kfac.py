"""K-FAC for PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.kronecker import blocks
from hessiod.backends_torch.kronecker.groups import arguments
from hessiod.backends_torch.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_torch.kronecker.policies import Fixed
from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.core.kronecker.damping import LevenbergMarquardt
from hessiod.core.kronecker.fixed import due
from hessiod.core.kronecker.precondition import quadratic_model


class KFAC(KroneckerOptimizer):
    r"""K-FAC (Martens and Grosse, arXiv:1503.05671; for convolutions Grosse and Martens, arXiv:1602.01407).

    .. math::
        A = \mathbb E[a a'],\quad G = \mathbb E[g g'], \qquad
        V = (G + \sqrt\lambda/\pi\,I)^{-1}\,\nabla W\,(A + \pi\sqrt\lambda\,I)^{-1} \\
        \nu = \min\Big(1, \sqrt{\kappa / \textstyle\sum \eta^2 \langle V, \nabla W\rangle}\Big), \qquad
        b_t = \mu b_{t-1} + \nu V + w W, \quad W \leftarrow W - \eta\, b_t

    over the layers of ``model``: Linear, Conv1d to 3d, Embedding, the projections of MultiheadAttention, and by 2 x 2
    blocks BatchNorm, LayerNorm, GroupNorm and RMSNorm. Other parameters follow ``fallback``; see :meth:`plan`.

    Args:
        model: the module whose layers are hooked.
        lr: learning rate, in the step and in the trust region; a scheduler may change it.
        momentum, nesterov: of the step, as in ``torch.optim.SGD``.
        damping: the lambda above. It does not depend on the batch's size.
        kl_clip: the kappa above, the bound on a step's KL divergence; None for none, which is likely to diverge.
        weight_decay: added to the natural gradient, before momentum.
        factor_every, inverse_every: steps between statistics, and between inverses; the first two are inverted at once.
        factor_decay: of the running average of A and G; the first refreshes are averaged evenly.
        fisher: "monte-carlo" samples targets from the model, in :meth:`update_curvature`; "empirical" takes the
            gradients of the training loss as they come, and a plain loop needs no call.
        likelihood: of the targets given the output: "categorical", "bernoulli" or "gaussian".
        reduction: what the loss does with its targets: "mean" over all (rows of classes, or entries), "batchmean" (the
            sum over the length of the first axis) or "sum".
        inverse: "cholesky", "eigen" or "newton-schulz": one matrix by three methods.
        block_size: invert A and G in diagonal blocks of this size; None inverts them whole.
        skip: patterns of module names or class names, with ``*``, that are left to the fallback.
        fallback, fallback_lr: "adamw" or "sgd" (with ``momentum``) and its learning rate.
        params: parameters or groups of the model to train, with their own lr, momentum, weight_decay, nesterov and
            fallback_lr; all that require a gradient by default.
        adapt_every: Levenberg-Marquardt damping: :meth:`update_damping` is due every so many steps. None for none.
        grad_scaler: the GradScaler in use, for loops that call ``unscale_`` with the empirical Fisher.
        process_group: True, or a process group, to share the work with its ranks: each runs its own part of the batch,
            without DistributedDataParallel, and ``step`` averages gradients. ``state_dict`` is then a rank's own part.
            False where a rank trains a model of its own; None is refused where there are several.
        placement: who inverts and moves a layer: "owner", "every" rank, or "one".
        overlap: send A to the owners in backward; for one backward a step.
        seed: of the sampled targets.
        maximize, nonfinite, missing: see :class:`~hessiod.backends_torch.adapter.RuleOptimizer`.

    State, in float32 or wider, with the first parameter of a layer: ``factor_a`` ``[in, in]``, ``factor_g``
    ``[out, out]``, their inverses in blocks; ``momentum_buffer`` with every parameter.

    >>> import torch
    >>> from torch.nn import functional as F
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    >>> x, y = torch.randn(64, 8), torch.randint(4, (64,))
    >>> opt = KFAC(model, lr=0.1, factor_every=5, inverse_every=5)
    >>> before = F.cross_entropy(model(x), y).item()
    >>> for _ in range(20):
    ...     logits = model(x)
    ...     loss = F.cross_entropy(logits, y)
    ...     if opt.curvature_due:                                # step 1, 6, 11, ...
    ...         opt.update_curvature(loss=loss, logits=logits)   # before backward
    ...     loss.backward()
    ...     _ = opt.step()
    ...     opt.zero_grad()
    >>> F.cross_entropy(model(x), y).item() < 0.8 * before
    True
    >>> print(opt.plan())
    parameter  shape   treatment  detail
    0.weight   16 x 8  KFAC       linear, A 9 x 9, G 16 x 16
    0.bias     16      KFAC       linear, A 9 x 9, G 16 x 16
    2.weight   4 x 16  KFAC       linear, A 17 x 17, G 4 x 4
    2.bias     4       KFAC       linear, A 17 x 17, G 4 x 4
    """

    policy = Fixed()

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.1,
        momentum: float = 0.9,
        damping: float = 1e-3,
        kl_clip: float | None = 1e-3,
        weight_decay: float = 0.0,
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
        fallback_lr: float = 1e-3,
        params: Any = None,
        adapt_every: int | None = None,
        grad_scaler: Any = None,
        process_group: Any = None,
        placement: str = "owner",
        overlap: bool = False,
        seed: int = 0,
        maximize: bool = False,
        nonfinite: str = "raise",
        missing: str = "raise",
    ) -> None:
        given = arguments(locals(), without=("adapt_every",))
        if maximize and adapt_every is not None:
            raise InvalidArgument("adapt_every: Levenberg-Marquardt damping follows a loss that falls; leave it out")
        if adapt_every is not None and process_group and placement != "every":
            raise InvalidArgument("adapt_every: on several processes it needs placement='every'")
        self._levenberg = None if adapt_every is None else LevenbergMarquardt(adapt_every)
        self.adapt_every, self._before, self._model = adapt_every, dict[Tensor, Tensor](), 0.0
        super().__init__(model, params, given)

    # Levenberg-Marquardt damping

    @property
    def damping_due(self) -> bool:
        """Whether :meth:`update_damping` is wanted now, after the step."""
        return bool(self._model)

    def update_damping(self, before: float | Tensor, after: float | Tensor) -> None:
        """Adapt the damping to how well the step was predicted (Martens and Grosse, section 6.5).

        Args:
            before: the loss that the last step was taken on.
            after: the loss of the same batch at the parameters after it.
        """
        if self._levenberg is None or not self._model:
            raise InvalidState(
                "update_damping: it is due after every adapt_every-th step and only then; ask opt.damping_due"
            )
        first, last = (loss.item() if isinstance(loss, Tensor) else float(loss) for loss in (before, after))
        self.damping = self._levenberg.next(self.damping, first, last, self._model)
        self._model = 0.0

    def _step(self) -> None:
        self._model = 0.0
        if self.adapt_every and due(self.steps + 1, self.adapt_every):
            covered = {param for layer in self.layers for param in layer.params if param.grad is not None}
            self._before = {param: param.detach().clone() for param in covered}
        super()._step()

    def _moved_by(self, grads: Mapping[Tensor, Tensor]) -> None:
        """Predict the change of the loss, from the move that was made and the factors."""
        if not self._before:
            return
        moves = {param: (param - old).to(grads[param].dtype) for param, old in self._before.items() if param in grads}
        slope = sum((grads[param] * move).sum().double() for param, move in moves.items())
        length = sum((move * move).sum().double() for move in moves.values())
        bent = torch.zeros((), dtype=torch.float64)
        for layer in self.layers:
            if all(param in moves for param in layer.params):
                given = [moves[param][rows] for param, rows in layer.slots]
                bent = bent + blocks.curvature(layer, given, self.layer_state(layer)).double().cpu()
        self._model = float(quadratic_model(xp, slope, bent, length, damping=self.damping))
        self._before = {}
