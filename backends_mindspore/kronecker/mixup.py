"""Running mixup, a part of SP-NGD's recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from mindspore import Tensor, ops

from hessiod.backends.kronecker import mixup
from hessiod.backends_mindspore import namespace


class RunningMixup(mixup.RunningMixup):
    r"""Mix each batch with what came out for the last one (Osawa et al., arXiv:2002.06015, section 5.2).

    .. math::
        \tilde x_t = \lambda x_t + (1 - \lambda)\,\tilde x_{t-1}, \qquad
        \tilde y_t = \lambda y_t + (1 - \lambda)\,\tilde y_{t-1}, \qquad \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    The first batch, and one of another size (the last of an epoch), passes as it is.

    Args:
        alpha: of the Beta distribution; 0.4 to 1 in the paper's runs.
        seed: of the draws.

    Called with inputs and targets of probabilities ``[N, classes]``; returns both mixed.

    >>> import mindspore as ms
    >>> mix = RunningMixup(alpha=1.0, seed=0)
    >>> x, y = mix(ms.ops.zeros((2, 3)), ms.Tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> x, y = mix(ms.ops.ones((2, 3)), ms.Tensor([[0.0, 1.0], [0.0, 1.0]]))
    >>> bool(0 < y[0, 1] < 1), bool(x[0, 0] == y[0, 1])
    (True, True)
    """

    xp: ClassVar[Any] = namespace
    one_hot: ClassVar[str] = "mindspore.ops.one_hot"

    def detached(self, array: Tensor) -> Tensor:
        """The array outside every graph of derivatives."""
        return ops.stop_gradient(array)
