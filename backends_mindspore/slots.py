"""A rule's state: an array of each slot for each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple

from hessiod.core.rule import Kernel

SLOTS = 4
"""How many a rule may have."""


def working_dtype(param: Parameter) -> Any:
    """The dtype that a parameter's slots and arithmetic have: float32 for half-precision parameters."""
    return ms.float32 if param.dtype in (ms.float16, ms.bfloat16) else param.dtype


def zeros_for(params: ParameterTuple, slot: str) -> ParameterTuple:
    """A slot: an array of zeros for each parameter, with the parameter's name behind the slot's."""
    arrays = params.clone(prefix=slot, init="zeros")
    for array, param in zip(arrays, params, strict=True):
        array.set_dtype(working_dtype(param))
    return arrays


def places(kernel: Kernel, slots: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where a kernel's operands stand in (param, grad, estimate, *slots), and which result goes to the parameter
    and to each slot, -1 for none.
    """
    arrays = ("param", "grad", "estimate", *slots)
    written = ("param", *slots, *[""] * (SLOTS - len(slots)))
    operands = tuple(arrays.index(name) for name in kernel.operands)
    return operands, tuple(kernel.results.index(name) if name in kernel.results else -1 for name in written)
