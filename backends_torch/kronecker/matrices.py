"""Second moments and natural gradients by compiled matrix products, where the machine and the tensors are such."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hessiod.backends import kernels
from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import DTYPES, Arrays, room_for, same
from hessiod.core.kronecker import factors, inverses

KINDS = {torch.float32: 0, torch.float64: 1}

Inverses = tuple[Sequence[Tensor], Sequence[Tensor]]
"""Those of A and of G, in blocks."""


def second_moment(rows: Tensor, *, ones: bool = False) -> Tensor:
    """``sum_rows r r'`` of ``[..., R, d]`` in float32 or float64; with ``ones`` each row has a last entry of 1.

    >>> second_moment(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), ones=True)
    tensor([[10., 14.,  4.],
            [14., 20.,  6.],
            [ 4.,  6.,  2.]])
    """
    if torch.compiler.is_compiling() or not (is_taken(rows) and rows.is_contiguous()):
        return factors.second_moment(xp, factors.with_ones(xp, rows) if ones else rows)
    number, size = rows.shape
    found = rows.new_empty((size + ones, size + ones))
    threads = torch.get_num_threads()
    kernels.second_moment(number, size, rows.data_ptr(), found.data_ptr(), DTYPES[rows.dtype], threads, ones=ones)
    return found


def second_moments(rows: Sequence[Tensor]) -> list[Tensor]:
    """:func:`second_moment` of each, by one call where compiled products take all.

    >>> second_moments([torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [3.0]])])
    [tensor([[1., 2.],
            [2., 4.]]), tensor([[10.]])]
    """
    given, shapes = Arrays(rows), [part.shape for part in rows]
    together = rows and not torch.compiler.is_compiling() and kernels.matrices_available()
    if not (together and taken(given) and all(len(shape) == 2 for shape in shapes)):
        return list(map(second_moment, rows))
    found = [part.new_empty((size, size)) for part, (_, size) in zip(rows, shapes, strict=True)]
    described = zip(map(KINDS.__getitem__, given.layouts[2]), shapes, strict=True)
    numbers = [number for kind, shape in described for number in (kind, *shape)]
    kernels.second_moments(numbers, given.addresses, Arrays(found).addresses, torch.get_num_threads())
    return found


def cholesky_inverse(xp: Any, factor: Tensor, damping: Tensor) -> Tensor:
    """``(A + damping I)^-1``, in compiled code by Gauss-Jordan steps; NaN where that is not positive definite.

    >>> cholesky_inverse(xp, torch.ones(2, 2, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    tensor([[ 0.6667, -0.3333],
            [-0.3333,  0.6667]], dtype=torch.float64)
    """
    if not is_taken(factor) or factor.stride(1) != 1:
        return inverses.cholesky_inverse(xp, factor, damping)
    size, found = factor.shape[0], factor.new_empty(factor.shape)
    places = factor.data_ptr(), factor.stride(0), damping.item(), found.data_ptr()
    kernels.damped_inverse(size, *places, DTYPES[factor.dtype], torch.get_num_threads())
    return found


def cholesky_inverses(
    factors: Sequence[Tensor], dampings: Sequence[Tensor], block: int | None
) -> list[list[Tensor]] | None:
    """The damped inverses of each factor in blocks, by one call; None where compiled code does not take all of them."""
    given = Arrays(factors)
    if not (factors and kernels.matrices_available() and taken(given)):
        return None
    numbers, places, added, found = list[int](), list[int](), list[float](), list[list[Tensor]]()
    values = torch.stack(list(dampings)).flatten().tolist()
    for factor, dtype, address, damping in zip(factors, given.layouts[2], given.addresses, values, strict=True):
        size = factor.shape[0]
        bounds = inverses.block_bounds(size, block)
        for start, stop in bounds:
            numbers += (KINDS[dtype], stop - start, size)
            places.append(address + start * (size + 1) * dtype.itemsize)
            added.append(damping)
        found.append([factor.new_empty((stop - start, stop - start)) for start, stop in bounds])
    results = array("q", [part.data_ptr() for parts in found for part in parts])
    kernels.damped_inverses(numbers, places, added, results, torch.get_num_threads())
    return found


def is_taken(matrix: Tensor) -> bool:
    """Whether compiled code takes a matrix, if its rows are dense."""
    plain = type(matrix) is Tensor and matrix.is_cpu and matrix.dtype in KINDS and not matrix.is_neg()
    return plain and matrix.dim() == 2 and kernels.matrices_available()


INVERSES = {**inverses.INVERSES, "cholesky": cholesky_inverse}


class Together:
    """The natural gradients of many layers by one call. What stays from step to step is worked out once."""

    def __init__(self) -> None:
        self.layers, self.blocks = list[Any](), list[Tensor]()
        self.dtypes: list[torch.dtype] | None = None
        self.table = array("q")

    def __call__(
        self, layers: Sequence[Any], inverses: Sequence[Inverses], grads: Arrays
    ) -> tuple[Arrays, list[float]] | None:
        """The natural gradients and ``<V, grad>`` of the layers' slots; None where compiled products do not take these.

        Args:
            layers: those of one matrix.
            inverses: each one's.
            grads: of their slots, one layer after another.
        """
        if not layers:
            return None
        blocks = [block for pair in inverses for part in pair for block in part]
        if not (same(blocks, self.blocks) and same(layers, self.layers)):
            self._look(layers, inverses, blocks)
        if grads.layouts[2] != self.dtypes or not taken(grads):
            return None
        found = room_for(grads)
        places = Arrays(blocks).addresses, grads.addresses, found.addresses
        return found, kernels.natural_gradients(self.table, *places, torch.get_num_threads())

    def _look(self, layers: Sequence[Any], inverses: Sequence[Inverses], blocks: list[Tensor]) -> None:
        """Work out the table, and the dtypes that gradients have to have; None if products do not take the inverses."""
        self.layers, self.blocks, self.dtypes = list(layers), blocks, None
        if not (kernels.matrices_available() and taken(Arrays(blocks))):
            return
        dtypes, first_a = list[torch.dtype](), 0
        self.table = array("q")
        for layer, (a, g) in zip(layers, inverses, strict=True):
            dtype, (out, size), first_g = a[0].dtype, layer.shape, first_a + len(a)
            if any(block.dtype != dtype for block in (*a, *g)):
                return
            sizes = out, size - layer.bias, a[0].shape[-1], g[0].shape[-1]
            self.table.extend((KINDS[dtype], *sizes, first_a, first_g, len(dtypes), layer.bias))
            dtypes += [dtype] * len(layer.slots)
            first_a = first_g + len(g)
        self.dtypes = dtypes


def taken(arrays: Arrays) -> bool:
    """Whether compiled matrix products take these tensors."""
    return arrays.plain and all(arrays.contiguous) and KINDS.keys() >= set(arrays.layouts[2])
