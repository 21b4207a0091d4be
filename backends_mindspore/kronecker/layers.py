"""Layers with a Kronecker-factored Fisher matrix, as the host sees them: sizes, roles, damped inverses.

Arrays are numpy's: MindSpore's Cholesky and eigenvalues have no kernel on Ascend and are slower than numpy's on CPUs.
"""

from __future__ import annotations

from math import prod
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn

from hessiod.backends.numpy import namespace as xp
from hessiod.core.kronecker import inverses
from hessiod.core.kronecker.owners import inverse_cost

TRAINED_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Layer:
    """A weight matrix ``[out, in]``, or one for each group, with the bias as its last column."""

    kind = "linear"
    statistics: tuple[str, ...] = ("a", "g")

    def __init__(self, name: str, cell: nn.Cell, params: list[Parameter]) -> None:
        self.name, self.cells, self.params = name, [cell], params
        self.bias = len(params) == 2
        weight = params[0].shape
        self.shape = weight[0] // prod(self.lead), prod(weight[1:]) + self.bias
        self.dtype = np.float64 if params[0].dtype == ms.float64 else np.float32

    @property
    def slots(self) -> list[Parameter]:
        """Its parameters, under the name that the plan asks for."""
        return self.params

    @property
    def lead(self) -> tuple[int, ...]:
        """Leading axes of the matrix: the groups of a convolution."""
        return ()

    def factor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of A and G."""
        out, size = self.shape
        return {"a": (*self.lead, size, size), "g": (*self.lead, out, out)}

    def inverse_shapes(self, block: int | None) -> dict[str, list[tuple[int, ...]]]:
        """Shapes of the blocks of their inverses."""
        return {name: inverses.block_shapes(shape, block) for name, shape in self.factor_shapes().items()}

    def inverse_cost(self, block: int | None) -> float:
        """What its inverses cost, to a constant."""
        return inverse_cost(*self.shape, lead=prod(self.lead), block=block)

    def trace_a(self, factor: Any) -> Any:
        """``tr A`` as ``[..., 1, 1]``."""
        return xp.trace(factor)

    def inverse_a(self, namespace: Any, factor: Any, damping: Any, inverse: Any, block: int | None) -> list[Any]:
        """The inverse of A damped, in blocks."""
        return inverses.block_inverses(namespace, factor, damping, inverse=inverse, block=block)


class Convolution(Layer):
    """``nn.Conv1d`` to ``nn.Conv3d``: a row is a patch."""

    kind = "convolution"

    @property
    def lead(self) -> tuple[int, ...]:
        """The groups, where there are several."""
        groups: int = self.cells[0].group
        return (groups,) if groups > 1 else ()


class Embedding(Layer):
    """``nn.Embedding``: A is diagonal, how often each token was used."""

    kind = "embedding"

    def __init__(self, name: str, cell: nn.Cell, params: list[Parameter]) -> None:
        super().__init__(name, cell, params)
        tokens, size = params[0].shape
        self.shape = size, tokens

    def factor_shapes(self) -> dict[str, tuple[int, ...]]:
        """A is a vector."""
        size, tokens = self.shape
        return {"a": (tokens,), "g": (size, size)}

    def inverse_cost(self, block: int | None) -> float:
        """That of G alone."""
        return inverse_cost(self.shape[0], 1, block=block)

    def trace_a(self, factor: Any) -> Any:
        """The sum of the diagonal."""
        return factor.sum().reshape(1, 1)

    def inverse_a(self, namespace: Any, factor: Any, damping: Any, inverse: Any, block: int | None) -> list[Any]:
        """``1 / (a + damping)``."""
        return [inverses.diagonal_inverse(namespace, factor, damping.reshape(()))]


class Norm(Layer):
    """Scale and shift of BatchNorm, LayerNorm and GroupNorm, or one of them: a 2 x 2 Fisher block for each channel.

    An example's gradient is summed over its positions before it is squared.
    """

    kind = "unit-wise"
    statistics = ("f",)

    def __init__(self, name: str, cell: nn.Cell, params: list[Parameter], roles: tuple[str, ...]) -> None:
        super().__init__(name, cell, params)
        self.roles = roles
        self.shape = len(params), params[0].size

    def factor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The three sums."""
        return {"f": (3, self.params[0].size)}

    def inverse_shapes(self, block: int | None) -> dict[str, list[tuple[int, ...]]]:
        """None: the blocks are inverted in closed form where they are used."""
        return {}

    def inverse_cost(self, block: int | None) -> float:
        """Nothing that counts."""
        return 0.0
