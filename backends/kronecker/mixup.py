"""Running mixup, a part of SP-NGD's recipe, for arrays of any framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Any, ClassVar

from hessiod.core.errors import InvalidArgument
from hessiod.core.kronecker.heavy_ball import mixed


class RunningMixup(ABC):
    r"""Mix each batch with what came out for the last one (Osawa et al., arXiv:2002.06015, section 5.2).

    .. math::
        \tilde x_t = \lambda x_t + (1 - \lambda)\,\tilde x_{t-1}, \qquad
        \tilde y_t = \lambda y_t + (1 - \lambda)\,\tilde y_{t-1}, \qquad \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    The first batch, and one of another size (the last of an epoch), passes as it is.

    Args:
        alpha: of the Beta distribution; 0.4 to 1 in the paper's runs.
        seed: of the draws.

    Called with inputs and targets of probabilities ``[N, classes]``; returns both mixed.

    Each framework has a class of its own. There ``xp`` is the framework's namespace, and ``one_hot`` names its function
    that makes probabilities of labels.
    """

    xp: ClassVar[Any]
    one_hot: ClassVar[str]

    @abstractmethod
    def detached(self, array: Any) -> Any:
        """The array outside every graph of derivatives."""

    def __init__(self, alpha: float, seed: int = 0) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < float("inf"):
            raise InvalidArgument(f"alpha: found {alpha!r}, expected a number > 0; 0.4 to 1 is usual")
        self.alpha, self._random = alpha, Random(seed)
        self._last: tuple[Any, Any] | None = None

    def __call__(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
        """Inputs and targets, mixed."""
        if not targets.is_floating_point():
            raise InvalidArgument(
                f"targets: found {targets.dtype}, expected probabilities [N, classes]; use {self.one_hot}"
            )
        if self._last is not None and self._last[0].shape == inputs.shape:
            share = self._random.betavariate(self.alpha, self.alpha)
            inputs, targets = (
                mixed(self.xp, new, earlier, share=share)
                for new, earlier in zip((inputs, targets), self._last, strict=True)
            )
        self._last = (self.detached(inputs), self.detached(targets))
        return inputs, targets

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {"random": self._random.getstate(), "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        version, words, gauss = state["random"]
        self._random.setstate((version, tuple(words), gauss))
        self._last = state["last"]
