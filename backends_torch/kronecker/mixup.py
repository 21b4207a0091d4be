"""Running mixup, a part of SP-NGD's recipe."""

from __future__ import annotations

from random import Random

from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.core.errors import InvalidArgument
from hessiod.core.kronecker.heavy_ball import mixed


class RunningMixup:
    r"""Mix each batch with what came out for the last one (Osawa et al., arXiv:2002.06015, section 5.2).

    .. math::
        \tilde x_t = \lambda x_t + (1 - \lambda)\,\tilde x_{t-1}, \qquad
        \tilde y_t = \lambda y_t + (1 - \lambda)\,\tilde y_{t-1}, \qquad \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    The first batch, and one of another size (the last of an epoch), passes as it is.

    Args:
        alpha: of the Beta distribution; 0.4 to 1 in the paper's runs.
        seed: of the draws.

    Called with inputs and targets of probabilities ``[N, classes]``; returns both mixed.

    >>> import torch
    >>> mix = RunningMixup(alpha=1.0, seed=0)
    >>> x, y = mix(torch.zeros(2, 3), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> x, y = mix(torch.ones(2, 3), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    >>> bool(0 < y[0, 1] < 1), torch.allclose(x[:, 0], y[:, 1])
    (True, True)
    """

    def __init__(self, alpha: float, seed: int = 0) -> None:
        if not alpha > 0:
            raise InvalidArgument(f"alpha: found {alpha!r}, expected a number > 0; 0.4 to 1 is usual")
        self.alpha, self._random = alpha, Random(seed)
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets, mixed."""
        if not targets.is_floating_point():
            raise InvalidArgument(
                f"targets: found {targets.dtype}, expected probabilities [N, classes]; use torch.nn.functional.one_hot"
            )
        pair = (inputs, targets)
        if self._last is not None and self._last[0].shape == inputs.shape:
            share = self._random.betavariate(self.alpha, self.alpha)
            pair = tuple(mixed(xp, new, old, share=share) for new, old in zip(pair, self._last, strict=True))  # type: ignore[assignment]
        self._last = tuple(part.detach() for part in pair)  # type: ignore[assignment]
        return pair

    def state_dict(self) -> dict:
        """Everything that a resumed run needs."""
        return {"random": self._random.getstate(), "last": self._last}

    def load_state_dict(self, state: dict) -> None:
        """Continue where ``state_dict`` was taken."""
        version, words, gauss = state["random"]
        self._random.setstate((version, tuple(words), gauss))
        self._last = state["last"]
