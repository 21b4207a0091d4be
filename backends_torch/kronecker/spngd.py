"""SP-NGD for PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from hessiod.backends.kronecker.settings import check_recipe
from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.kronecker.groups import arguments
from hessiod.backends_torch.kronecker.layers import Convolution, Layer
from hessiod.backends_torch.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_torch.kronecker.policies import Stale
from hessiod.core.kronecker.damping import warmed_up
from hessiod.core.kronecker.heavy_ball import HEAVY_BALL, rescaled
from hessiod.core.kronecker.recipes import coupled_momentum
from hessiod.core.rule import Rule


class SPNGD(KroneckerOptimizer):
    r"""SP-NGD, scalable and practical natural gradient descent (Osawa et al., arXiv:2002.06015).

    .. math::
        V = (G + \sqrt\lambda/\pi\,I)^{-1}\,\nabla W\,(A + \pi\sqrt\lambda\,I)^{-1}, \qquad
        v_t = \mu_t v_{t-1} - \eta_t (\nu V + w W), \quad W \leftarrow W + v_t

    with the empirical Fisher matrix, whose gradients come from the training backward, unit-wise 2 x 2 blocks for
    normalisation layers, and statistics without an average, each refreshed at an interval of its own
    (:mod:`hessiod.core.kronecker.stale`): while it changes by less than ``alpha`` its intervals grow like Fibonacci's
    numbers, and when it changes they are halved. A plain loop needs no extra call.

    Args:
        model: the module whose layers are hooked.
        lr: learning rate. The recipe lowers it as :func:`hessiod.core.kronecker.recipes.polynomial_lr` does.
        momentum: of the velocity; its value at the first learning rate where ``couple_momentum`` is set.
        damping, kl_clip, weight_decay, fisher, likelihood, reduction, inverse, block_size, skip, fallback, fallback_lr,
            params, grad_scaler, process_group,
            placement, overlap, seed, maximize, nonfinite, missing: as of :class:`~hessiod.torch.KFAC`.
        alpha: the relative change from which a statistic is not similar to an earlier one.
        couple_momentum: let momentum fall with the learning rate, ``momentum * lr_t / lr``; not where the first is 0.
        damping_start, damping_steps: begin with this damping and lower it to ``damping`` over so many steps.
        rescale: patterns of layer names whose weight is scaled back to the norm ``sqrt(2 * out)`` after each step where
            it is longer; for layers that a normalisation follows. ``["*"]`` is all Linear and Conv layers.

    State as of :class:`~hessiod.torch.KFAC`, and the statistic before the last one, with its intervals.

    >>> import torch
    >>> from torch.nn import functional as F
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    >>> x, y = torch.randn(64, 8), torch.randint(4, (64,))
    >>> opt = SPNGD(model, lr=0.1)
    >>> before = F.cross_entropy(model(x), y).item()
    >>> for _ in range(20):
    ...     F.cross_entropy(model(x), y).backward()
    ...     _ = opt.step()
    ...     opt.zero_grad()
    >>> F.cross_entropy(model(x), y).item() < 0.8 * before
    True
    """

    policy = Stale()

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.1,
        momentum: float = 0.9,
        damping: float = 1e-3,
        kl_clip: float | None = 1e-3,
        weight_decay: float = 0.0,
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
        given = arguments(locals(), without=("rescale",))
        check_recipe(damping_start, damping_steps, rescale)
        super().__init__(model, params, {**given, "target_damping": damping})
        self.rescale = tuple(rescale)
        self._rescaled = [la for la in self.layers if isinstance(la, Layer) and matches(la, rescale)]

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """The velocity form of momentum, or the fallback's rule."""
        return HEAVY_BALL if group["covered"] else super().rule_of(group)

    def values_of(self, group: Mapping[str, Any], number: Callable[[Tensor], Any] = Tensor.item) -> dict[str, Any]:
        """The group's hyperparameters, with momentum coupled to the learning rate where that was chosen."""
        values = super().values_of(group, number)
        if group["couple_momentum"] and "momentum" in values and group["first_lr"]:
            values["momentum"] = coupled_momentum(values["lr"], first_lr=group["first_lr"], momentum=values["momentum"])
        return values

    def _step(self) -> None:
        group = self.param_groups[0]
        if group["damping_steps"]:
            self.damping = warmed_up(
                group["target_damping"], group["damping_start"], group["damping_steps"], self.steps + 1
            )
        super()._step()

    def _moved_by(self, grads: Mapping[Tensor, Tensor]) -> None:
        for layer in self._rescaled:
            param, rows = layer.slots[0]
            if param in grads:
                weight = param[rows]
                weight.copy_(rescaled(xp, weight, out=weight.shape[0]))


def matches(layer: Any, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the layer's name, of a Linear, Conv or attention layer."""
    is_weight = type(layer) in (Layer, Convolution)
    return is_weight and any(fnmatchcase(layer.name, pattern) for pattern in patterns)
