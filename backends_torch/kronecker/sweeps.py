"""Functions of core/ on each of many tensors, by one call of a compiled kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch

from hessiod.backends import kernels
from hessiod.backends_torch.arrays import Arrays
from hessiod.core.rule import Kernel


def swept(kernel: Kernel, operands: Sequence[Arrays], scalars: Sequence[Mapping[str, float]]) -> bool:
    """Run an elementwise kernel in place, if there is a compiled one that takes these tensors together.

    Args:
        kernel: its scalars are given as they are.
        operands: for each of its operands the tensors.
        scalars: one mapping for each place in these lists.
    """
    first = operands[0]
    if not (first.tensors and kernels.available() and of_one_kind(operands)):
        return False
    sweep = kernels.sweep_for((kernel,), *[first.dtypes[0]] * 3)
    if sweep is None:
        return False
    addresses = [arrays.addresses for arrays in operands]
    pointers = addresses[0] if len(addresses) == 1 else list(chain(*zip(*addresses, strict=True)))
    different = list({tuple(own.items()): own for own in scalars}.values())
    rows = list(map(different.index, scalars))
    numbers = list(map(sweep.program.scalars_from, different))
    sweep.run(first.sizes, pointers, rows, numbers, torch.get_num_threads())
    return True


def of_one_kind(operands: Sequence[Arrays]) -> bool:
    """Whether all are contiguous and of one dtype that kernels take."""
    plain = all(arrays.plain and all(arrays.contiguous) for arrays in operands)
    return plain and len({dtype for arrays in operands for dtype in arrays.layouts[2]}) == 1
