"""Compiled kernels as Python functions: arrays go in as addresses, and the interpreter's lock is released meanwhile."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hessiod.backends.kernels import compiler, cpp, disk
from hessiod.core.rule import Kernel
from hessiod.core.trace import Program

DTYPED = ("param", "grad", "estimate")
"""Arrays whose dtype in memory is given; the others have the dtype that is calculated with."""


def loaded(source: str, *more: str) -> ctypes.CDLL:
    """The library of a source, from the cache or compiled with ``more`` flags."""
    name = disk.key(source, *compiler.FLAGS, *more, compiler.OPENMP, compiler.identity())
    return ctypes.CDLL(str(disk.library(name, lambda target: compiler.compile_library(source, target, *more))))


def table(values: Sequence[int]) -> array[int]:
    """Whole numbers as compiled code reads them."""
    return values if isinstance(values, array) else array("q", values)


@dataclass(frozen=True)
class Sweep:
    """A compiled program.

    >>> from hessiod.core import RULES
    >>> sweep = compiled((RULES["sgd"].step,), "float64", "float64", "float64")
    >>> param, grad = array("d", [1.0, 2.0]), array("d", [1.0, -1.0])
    >>> scalars = sweep.program.scalars_from({"lr": 0.5, "weight_decay": 0.0})
    >>> pointers = [param.buffer_info()[0], grad.buffer_info()[0]]          # in the order of program.operands
    >>> sweep.run([2], pointers, [0], [scalars], threads=1)
    >>> list(param)
    [0.5, 2.5]
    """

    program: Program
    function: Callable[..., None]

    def run(
        self,
        sizes: Sequence[int],
        pointers: Sequence[int],
        rows: Sequence[int],
        scalars: Sequence[Mapping[str, Any]],
        threads: int,
    ) -> None:
        """Run the program in place on many tensors.

        Args:
            sizes: how many entries each tensor has.
            pointers: addresses of the program's operands, those of the first tensor first. All arrays of a tensor are
                dense and have their entries in the same order. Nothing can be checked here.
            rows: which entry of ``scalars`` each tensor takes.
            scalars: what :meth:`Program.scalars_from` returned.
            threads: how many threads share the work; results do not depend on it.
        """
        names = self.program.graph.scalars
        numbers = array("d", [float(row[name]) for row in scalars for name in names])
        tables = [table(values) for values in (sizes, pointers, rows)]
        addresses = [values.buffer_info()[0] for values in tables]
        self.function(len(sizes), *addresses, numbers.buffer_info()[0], threads)


@cache
def compiled(kernels: tuple[Kernel, ...], param: str, grad: str, estimate: str) -> Sweep:
    """The program of some kernels for arrays of some dtypes; raises ``CompilerUnavailable`` where there is none."""
    return compiled_together((kernels,), param, grad, estimate)[0]


def compiled_together(
    programs: Sequence[tuple[Kernel, ...]], param: str, grad: str, estimate: str
) -> tuple[Sweep, ...]:
    """Several programs in one library."""
    made = [Program(kernels) for kernels in programs]
    library = loaded(cpp.source(made, dict(zip(DTYPED, (param, grad, estimate), strict=True))))
    functions = [getattr(library, f"hessiod_run_{number}") for number in range(len(made))]
    for function in functions:
        function.argtypes = [ctypes.c_int64, *[ctypes.c_void_p] * 4, ctypes.c_int64]
        function.restype = None
    return tuple(Sweep(program, function) for program, function in zip(made, functions, strict=True))


@cache
def common() -> ctypes.CDLL:
    """The library of the functions that belong to no rule."""
    library, pointers, count = loaded(cpp.common_source()), ctypes.c_void_p, ctypes.c_int64
    library.hessiod_nonfinite.argtypes = [count, *[pointers] * 3, count]
    library.hessiod_nonfinite.restype = count
    library.hessiod_squares.argtypes = [count, *[pointers] * 3, count]
    library.hessiod_squares.restype = ctypes.c_double
    library.hessiod_inner.argtypes = [count, *[pointers] * 5, count]
    library.hessiod_inner.restype = None
    library.hessiod_philox.argtypes = [count, pointers, *[ctypes.c_uint64] * 5, pointers, count]
    library.hessiod_philox.restype = None
    library.hessiod_uniforms.argtypes = [count, *[ctypes.c_uint64] * 6, pointers, count]
    library.hessiod_uniforms.restype = None
    return library


def kinds(dtypes: Sequence[str]) -> array[int]:
    """The numbers of some dtypes."""
    if len(set(dtypes)) == 1:
        return array("q", [cpp.KINDS[dtypes[0]]]) * len(dtypes)
    return array("q", map(cpp.KINDS.__getitem__, dtypes))


def first_nonfinite(sizes: Sequence[int], pointers: Sequence[int], dtypes: Sequence[str], threads: int) -> int | None:
    """The place of the first dense array that holds NaN or infinity.

    >>> fine, bad = array("f", [1.0, 3e38]), array("f", [0.0, float("inf")])
    >>> first_nonfinite([2, 2], [fine.buffer_info()[0], bad.buffer_info()[0]], ["float32", "float32"], threads=1)
    1
    """
    place = ask(common().hessiod_nonfinite, sizes, pointers, dtypes, threads)
    return None if place == len(sizes) else place


def squares(sizes: Sequence[int], pointers: Sequence[int], dtypes: Sequence[str], threads: int) -> float:
    """The sum of squares of all entries of some dense arrays, in float64; the number of threads changes nothing.

    >>> some, others = array("f", [1.0, 2.0]), array("d", [3.0])
    >>> squares([2, 1], [some.buffer_info()[0], others.buffer_info()[0]], ["float32", "float64"], threads=1)
    14.0
    """
    return ask(common().hessiod_squares, sizes, pointers, dtypes, threads)


def ask(
    function: Callable[..., Any], sizes: Sequence[int], pointers: Sequence[int], dtypes: Sequence[str], threads: int
) -> Any:
    """Call a function that looks through many arrays."""
    where = [table(values) for values in (sizes, pointers, kinds(dtypes))]
    return function(len(sizes), *[values.buffer_info()[0] for values in where], threads)


def inner_products(
    sizes: Sequence[int], pointers: Sequence[int], others: Sequence[int], dtypes: Sequence[str], threads: int
) -> list[float]:
    """``sum x * y`` of pairs of dense float32 or float64 arrays, in doubles; the result does not depend on threads.

    >>> x, y = array("f", [1.0, 2.0]), array("f", [3.0, 4.0])
    >>> inner_products([2], [x.buffer_info()[0]], [y.buffer_info()[0]], ["float32"], threads=1)
    [11.0]
    """
    products = array("d", bytes(8 * len(sizes)))
    where = [table(values) for values in (sizes, pointers, others, kinds(dtypes))]
    places = [values.buffer_info()[0] for values in where]
    common().hessiod_inner(len(sizes), *places, products.buffer_info()[0], threads)
    return products.tolist()


def philox(blocks: int, pointer: int, counter: Sequence[int], key: Sequence[int], out: int, threads: int) -> None:
    """:func:`hessiod.core.philox.philox4x32`, four words for each of ``blocks`` numbers at ``pointer``, to ``out``.

    ``counter`` holds the other three words. Known answer (Random123's kat_vectors):

    >>> block, words = array("q", [0]), array("q", [0, 0, 0, 0])
    >>> philox(1, block.buffer_info()[0], (0, 0, 0), (0, 0), words.buffer_info()[0], threads=1)
    >>> [hex(word) for word in words]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    common().hessiod_philox(blocks, pointer, *counter, *key, out, threads)


def uniforms(blocks: int, first: int, counter: Sequence[int], key: Sequence[int], out: int, threads: int) -> None:
    """:func:`hessiod.core.philox.uniforms`, four float32 numbers for each of ``blocks`` from ``first`` on, to ``out``.

    >>> numbers = array("f", [0.0, 0.0, 0.0, 0.0])
    >>> uniforms(1, 0, (0, 0, 0), (0, 0), numbers.buffer_info()[0], threads=1)
    >>> [hex(int(number * 2**24)) for number in numbers]
    ['0x6627e8', '0xe169c5', '0xbc57ac', '0x9b00db']
    """
    common().hessiod_uniforms(blocks, first, *counter, *key, out, threads)
