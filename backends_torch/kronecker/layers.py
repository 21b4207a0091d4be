"""Layers with a Kronecker-factored Fisher matrix: rows of inputs, rows of output gradients, the weight as a matrix.

Rows and second moments are float32 or wider, whatever autocast did: a factor rounded to bfloat16 is not positive
definite.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.kronecker.matrices import second_moment
from hessiod.backends_torch.precision import widened
from hessiod.core.kronecker import inverses, precondition
from hessiod.core.kronecker.owners import inverse_cost


class Slot(NamedTuple):
    """A parameter of a layer, or the rows of it that belong to the layer (a projection of attention)."""

    param: Tensor
    rows: slice = slice(None)

    @property
    def whole(self) -> bool:
        """Whether the whole parameter belongs to the layer."""
        return self.rows.start is None

    @property
    def place(self) -> tuple[int, Any]:
        """What two slots have in common when they are the same: tensors compare entry by entry."""
        return id(self.param), self.rows.start


class Seen(NamedTuple):
    """What one forward of a layer leaves: the inputs' sum, its number of rows, what the output's sum will need."""

    total: Tensor
    rows: int
    context: Any = None


class Layer:
    """A weight matrix ``[out, in]``, or one for each group, with the bias as its last column.

    ``slots`` holds the weight and, if there is one that is trained, the bias.
    """

    kind = "linear"
    statistics = ("a", "g")
    one_matrix = True
    """Whether its gradient is one matrix, between two inverses that are matrices."""

    def __init__(self, name: str, module: nn.Module, slots: list[Slot], label: str = "") -> None:
        self.name, self.modules, self.slots, self.label = name, [module], slots, label
        self.bias = len(slots) == 2
        weight = slots[0].param[slots[0].rows]
        groups = prod(self.lead)
        self._shape = weight.shape[0] // groups, weight[0].numel() + self.bias
        self._shapes = [slot.param[slot.rows].shape for slot in slots]
        self._reshaped = weight.dim() > 2
        self.one_matrix = self.one_matrix and not self.lead

    @property
    def params(self) -> list[Tensor]:
        """Its parameters, the weight first."""
        return [slot.param for slot in self.slots]

    def inputs(self, module: nn.Module, x: Tensor) -> Seen:
        """The second moment of a forward's inputs."""
        rows = self._input_rows(module, widened(x.detach()))
        return Seen(second_moment(rows, ones=self.bias), rows.shape[-2])

    def outputs(self, grad: Tensor, context: Any) -> Tensor:
        """The second moment of a backward's output gradients."""
        return second_moment(self._output_rows(widened(grad)))

    def _input_rows(self, module: nn.Module, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])

    def _output_rows(self, grad: Tensor) -> Tensor:
        return grad.reshape(-1, grad.shape[-1])

    def matrix(self, tensors: list[Tensor]) -> Tensor:
        """The weight's and the bias's tensors as one matrix."""
        weight, bias = tensors[0], tensors[-1]
        if self._reshaped:
            weight, bias = weight.reshape(*self.lead, self.shape[0], -1), bias.reshape(*self.lead, -1)
        return torch.cat((weight, bias.unsqueeze(-1)), -1) if self.bias else weight

    def columns(self, matrix: Tensor) -> list[Tensor]:
        """The weight's and the bias's columns of a matrix."""
        last = matrix.shape[-1] - 1
        return [matrix.narrow(-1, 0, last), matrix.narrow(-1, last, 1)] if self.bias else [matrix]

    @property
    def lead(self) -> tuple[int, ...]:
        """Leading axes of the matrix: the groups of a convolution."""
        return ()

    @property
    def shape(self) -> tuple[int, int]:
        """The sizes of G and of A."""
        return self._shape

    def factor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of A and G."""
        out, size = self.shape
        return {"a": (*self.lead, size, size), "g": (*self.lead, out, out)}

    def inverse_cost(self, block: int | None) -> float:
        """What its inverses cost, to a constant."""
        return inverse_cost(*self.shape, lead=prod(self.lead), block=block)

    # The linear algebra that the embedding does otherwise

    def trace_a(self, factor: Tensor) -> Tensor:
        """``tr A`` as ``[..., 1, 1]``."""
        return xp.trace(factor)

    def inverse_a(self, factor: Tensor, damping: Tensor, inverse: Any, block: int | None) -> list[Tensor]:
        """The inverse of A damped, in blocks."""
        return inverses.block_inverses(xp, factor, damping, inverse=inverse, block=block)

    def direction(self, grads: list[Tensor], inverse_a: list[Tensor], inverse_g: list[Tensor]) -> list[Tensor]:
        """``G^-1 grad A^-1`` in the slots' shapes, contiguous, so that a compiled kernel can take them."""
        right = precondition.times_blocks(xp, self.matrix(grads), inverse_a)
        parts = [precondition.blocks_times(xp, inverse_g, columns) for columns in self.columns(right)]
        return [part.contiguous().view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def fisher_product(self, direction: Tensor, a: Tensor, g: Tensor) -> Tensor:
        """``G V A``."""
        return precondition.fisher_product(xp, direction, a, g)


class Convolution(Layer):
    """``nn.Conv1d``, ``2d`` and ``3d``: a row is a patch; with any stride, padding, dilation and groups."""

    kind = "convolution"

    @property
    def lead(self) -> tuple[int, ...]:
        """The groups, where there are several."""
        groups: Any = self.modules[0].groups
        return (groups,) if groups > 1 else ()

    def _input_rows(self, module: Any, x: Tensor) -> Tensor:
        spatial = len(module.kernel_size)
        if x.dim() == spatial + 1:  # an example without a batch axis
            x = x[None]
        if any(module._reversed_padding_repeated_twice):
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
        shape = zip(module.kernel_size, module.stride, module.dilation, strict=True)
        for axis, (size, stride, dilation) in enumerate(shape, start=2):
            x = x.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        # [N, channels, *positions, *kernel] -> [groups, N * positions, channels of a group * kernel]
        x = x.unflatten(1, (module.groups, -1)).movedim(2, 2 + spatial).movedim(1, 0)
        rows = x.reshape(module.groups, -1, self.shape[1] - self.bias)
        return rows if self.lead else rows[0]

    def _output_rows(self, grad: Tensor) -> Tensor:
        if grad.dim() == len(self.modules[0].kernel_size) + 1:  # type: ignore[arg-type]
            grad = grad[None]
        rows = grad.movedim(1, -1).reshape(-1, *self.lead, self.shape[0])
        return rows.movedim(0, -2)


class Embedding(Layer):
    """``nn.Embedding``: A is diagonal, how often each token was used; rows of ``padding_idx`` count for nothing."""

    kind = "embedding"
    one_matrix = False

    def inputs(self, module: Any, x: Tensor) -> Seen:
        """Counts of the tokens."""
        tokens = x.detach().reshape(-1)
        used = (
            tokens != module.padding_idx
            if module.padding_idx is not None
            else torch.ones_like(tokens, dtype=torch.bool)
        )
        weight = self.slots[0].param
        counts = torch.zeros(weight.shape[0], dtype=widened(weight.detach()[:0]).dtype, device=weight.device)
        counts.index_add_(0, tokens, used.to(counts.dtype))
        return Seen(counts, int(used.sum()), used)

    def outputs(self, grad: Tensor, context: Tensor) -> Tensor:
        """The second moment over the tokens that are not padding."""
        return second_moment(self._output_rows(widened(grad)) * context[:, None])

    def factor_shapes(self) -> dict[str, tuple[int, ...]]:
        """A is a vector."""
        tokens, size = self.slots[0].param.shape
        return {"a": (tokens,), "g": (size, size)}

    def inverse_cost(self, block: int | None) -> float:
        """That of G alone."""
        return inverse_cost(self.shape[0], 1, block=block)

    @property
    def shape(self) -> tuple[int, int]:
        """The embedding's size, and the number of tokens."""
        tokens, size = self.slots[0].param.shape
        return size, tokens

    def matrix(self, tensors: list[Tensor]) -> Tensor:
        """The tensor itself, ``[tokens, size]``."""
        return tensors[0]

    def trace_a(self, factor: Tensor) -> Tensor:
        """The sum of the diagonal."""
        return factor.sum().reshape(1, 1)

    def inverse_a(self, factor: Tensor, damping: Tensor, inverse: Any, block: int | None) -> list[Tensor]:
        """``1 / (a + damping)``, whole at any block size."""
        return [inverses.diagonal_inverse(xp, factor, damping.reshape(()))]

    def direction(self, grads: list[Tensor], inverse_a: list[Tensor], inverse_g: list[Tensor]) -> list[Tensor]:
        """``A^-1 grad G^-1``, for rows that are tokens."""
        return [precondition.precondition_embedding(xp, grads[0], inverse_a[0], inverse_g)]

    def fisher_product(self, direction: Tensor, a: Tensor, g: Tensor) -> Tensor:
        """``A V G``."""
        return precondition.fisher_product_embedding(xp, direction, a, g)
