"""Kernels as they stand, one torch operation after another: what any device and any layout can run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import Arrays, alike
from hessiod.backends_torch.plans import elementwise
from hessiod.backends_torch.precision import widened
from hessiod.core.rule import Kernel

PIECE = 2**16
"""Entries that an operation on the CPU takes at a time: eight float32 arrays of them are 2 MiB."""


def eagerly(
    program: Sequence[Kernel],
    arrays: Mapping[str, Any],
    values: Mapping[str, Any],
    grad_scale: Any = 1.0,
    go: Tensor | None = None,
) -> None:
    """Run kernels one after another and write their results into the arrays that they belong to.

    Half-precision arrays are widened first, and the parameter is rounded once, at the end. Where ``go`` is given and
    0, the arrays stay as they are.
    """
    given = {name: arrays[name] for kernel in program for name in kernel.operands}
    for piece in pieces(program, given):
        wide = {name: widened(array) for name, array in piece.items()}
        before = {} if go is None else {name: piece[name].clone() for name in results_of(program)}
        if isinstance(grad_scale, Tensor) or grad_scale != 1:
            wide["grad"] = wide["grad"] * rounded(grad_scale, wide["grad"])
        for kernel in program:
            operands = [wide[name] for name in kernel.operands]
            scalars = {name: rounded(value, operands[0]) for name, value in kernel.scalars_from(values).items()}
            results = kernel.function(xp, *operands, **scalars)
            for name, result in zip(kernel.results, results, strict=True):
                wide[name].copy_(result)
        for name in results_of(program):
            if wide[name] is not piece[name]:
                piece[name].copy_(wide[name])
        for name, old in before.items():
            piece[name].copy_(torch.where(torch.as_tensor(go, dtype=torch.bool), piece[name], old))


def rounded(scalar: Any, array: Tensor) -> Any:
    """A scalar that is a tensor in the array's dtype: a 0-d array would otherwise be widened to it."""
    return scalar.to(array.dtype) if isinstance(scalar, Tensor) else scalar


def results_of(program: Sequence[Kernel]) -> set[str]:
    """The arrays that some kernels write."""
    return {name for kernel in program for name in kernel.results}


def pieces(program: Sequence[Kernel], arrays: Mapping[str, Tensor]) -> Iterable[Mapping[str, Tensor]]:
    """The arrays in pieces that fit a cache, where that changes nothing; otherwise whole."""
    found = list(arrays.values())
    size = found[0].numel()
    cut = size > PIECE and all(map(elementwise, program)) and Arrays(found).plain and alike(found)
    if not cut:
        return [arrays]
    flat = {name: array.as_strided((size,), (1,)) for name, array in arrays.items()}
    return ({name: array[start : start + PIECE] for name, array in flat.items()} for start in range(0, size, PIECE))
