"""Generated kernels as a conformance route: any function of core/, out of place, through the code that steps run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import Parameter, Signature
from typing import Any

import numpy as np

from hessiod.backends.half import packed, unpacked
from hessiod.backends.kernels.library import DTYPED, compiled
from hessiod.core.rule import Kernel
from hessiod.core.trace import result_count


@cache
def out_of_place(function: Callable[..., Any], operands: int, scalars: tuple[str, ...], results: int) -> Kernel:
    """A kernel that reads the function's operands and writes its results to further arrays, which it does not read."""

    def extended(xp: Any, *arrays: Any, **numbers: Any) -> Any:
        found = function(xp, *arrays[:operands], **numbers)
        return found if isinstance(found, tuple) else (found,)

    names = [Parameter(name, Parameter.KEYWORD_ONLY) for name in scalars]
    extended.__signature__ = Signature(names)  # type: ignore[attr-defined]  # where the tracer looks for scalars
    written = tuple(f"result{place}" for place in range(results))
    read = tuple(f"operand{place}" for place in range(operands))
    return Kernel(extended, lambda **values: values, (*read, *written), written)


def run(function: Callable[..., Any], arrays: Sequence[np.ndarray], scalars: Mapping[str, float]) -> tuple[Any, ...]:
    """Call a function of core/ as generated C++, on copies of the arrays.

    >>> def halved(xp, x, *, half):
    ...     return (half * x,)
    >>> run(halved, [np.array([2.0, -4.0])], {"half": 0.5})[0]
    array([ 1., -2.])
    """
    operands = [f"operand{place}" for place in range(len(arrays))]
    kernel = out_of_place(function, len(arrays), tuple(scalars), result_count(function, operands, tuple(scalars)))
    dtype = str(arrays[0].dtype)
    sweep = compiled((kernel,), dtype, dtype, dtype)
    given = [np.array(array, order="C", copy=True) for array in arrays]
    given += [np.empty_like(given[0]) for _ in kernel.results]
    numbers = dict(zip(sweep.program.graph.scalars, (1.0, *scalars.values()), strict=True))
    sweep.run([given[0].size], [array.ctypes.data for array in given], [0], [numbers], threads(given[0].size))
    return tuple(given[len(arrays) :])


def run_half(
    kernel: Kernel, arrays: Mapping[str, np.ndarray], values: Mapping[str, float], dtype: str
) -> tuple[Any, ...]:
    """Run a rule's kernel in place on copies of the arrays, of which those that users give are in half precision."""
    kept = {
        name: packed(array, dtype) if name in DTYPED else np.array(array, order="C", copy=True)
        for name, array in arrays.items()
    }
    move(
        (kernel,),
        {name: array.ctypes.data for name, array in kept.items()},
        arrays[kernel.operands[0]].size,
        values,
        dtype,
    )
    return tuple(unpacked(kept[name], dtype) if name in DTYPED else kept[name] for name in kernel.results)


def move(
    kernels: tuple[Kernel, ...], addresses: Mapping[str, int], size: int, values: Mapping[str, float], dtype: str
) -> None:
    """Run a step's kernels in place on one parameter's arrays, given by their addresses."""
    sweep = compiled(kernels, dtype, dtype, dtype)
    pointers = [addresses[name] for name in sweep.program.operands]
    sweep.run([size], pointers, [0], [sweep.program.scalars_from(values)], threads(size))


def threads(size: int) -> int:
    """Two threads where there is work for two: results do not depend on it, and starting them takes longer."""
    return 2 if size > 2**16 else 1
