"""Second moments and natural gradients of layers by compiled matrix products, many small ones in one call."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache

from hessiod.backends.kernels import compiler, cpp
from hessiod.backends.kernels.library import loaded, table

FIELDS = 9
"""Numbers that describe a layer to :func:`natural_gradients`."""

ROWS = 3
"""Numbers that describe rows to :func:`second_moments`, and a factor to :func:`damped_inverses`."""


@cache
def products() -> ctypes.CDLL:
    """The library, in which products and sums are fused."""
    library, pointers, count = loaded(cpp.matrices_source(), compiler.FUSED), ctypes.c_void_p, ctypes.c_int64
    library.hessiod_vector_bytes.restype = count
    library.hessiod_moment.argtypes = [*[count] * 4, pointers, pointers, count]
    library.hessiod_moment.restype = None
    library.hessiod_moments.argtypes = [count, *[pointers] * 3, count]
    library.hessiod_moments.restype = None
    library.hessiod_inverse.argtypes = [count, count, pointers, count, ctypes.c_double, pointers, count]
    library.hessiod_inverse.restype = None
    library.hessiod_inverses.argtypes = [count, *[pointers] * 4, count]
    library.hessiod_inverses.restype = None
    library.hessiod_natural.argtypes = [count, *[pointers] * 5, count]
    library.hessiod_natural.restype = None
    return library


@cache
def wide() -> bool:
    """Whether the processor has vectors of 32 bytes and more; with less a library is faster (NEON, and AMX beside)."""
    return bool(products().hessiod_vector_bytes() >= 32)


def second_moment(
    rows: int, size: int, pointer: int, found: int, dtype: str, threads: int, *, ones: bool = False
) -> None:
    """``x' x`` of ``[rows, size]`` at ``pointer``, dense and float32 or float64, to ``found``; exactly symmetric.

    With ``ones`` as if x had a last column of ones. It does not depend on the number of threads.

    >>> x, found = array("d", [1.0, 2.0, 3.0, 4.0]), array("d", bytes(8 * 9))
    >>> second_moment(2, 2, x.buffer_info()[0], found.buffer_info()[0], "float64", 1, ones=True)
    >>> list(found)
    [10.0, 14.0, 4.0, 14.0, 20.0, 6.0, 4.0, 6.0, 2.0]
    """
    products().hessiod_moment(cpp.KINDS[dtype], rows, size, ones, pointer, found, threads)


def second_moments(rows: Sequence[int], pointers: Sequence[int], found: Sequence[int], threads: int) -> None:
    """:func:`second_moment` of many arrays.

    Args:
        rows: for each 0 for float32 or 1 for float64, the number of rows and their size.
        pointers: addresses of the arrays.
        found: addresses of the results.
        threads: how many share the work.

    >>> x, found = array("d", [1.0, 2.0, 3.0, 4.0]), array("d", bytes(8 * 5))
    >>> start, to = x.buffer_info()[0], found.buffer_info()[0]
    >>> second_moments([1, 2, 2, 1, 4, 1], [start, start], [to, to + 8 * 4], threads=1)
    >>> list(found)
    [10.0, 14.0, 14.0, 20.0, 30.0]
    """
    where = [table(values) for values in (rows, pointers, found)]
    products().hessiod_moments(len(rows) // ROWS, *[values.buffer_info()[0] for values in where], threads)


def damped_inverse(size: int, factor: int, row: int, damping: float, found: int, dtype: str, threads: int) -> None:
    """``(A + damping I)^-1`` to ``found``, dense and exactly symmetric; NaN where A is not positive definite with it.

    The rows of A, at ``factor``, lie ``row`` entries apart. It does not depend on the number of threads.

    >>> a, found = array("d", [1.0, 1.0, 1.0, 1.0]), array("d", bytes(32))
    >>> damped_inverse(2, a.buffer_info()[0], 2, 1.0, found.buffer_info()[0], "float64", threads=1)
    >>> [round(entry, 6) for entry in found]
    [0.666667, -0.333333, -0.333333, 0.666667]
    """
    products().hessiod_inverse(cpp.KINDS[dtype], size, factor, row, damping, found, threads)


def damped_inverses(
    factors: Sequence[int], pointers: Sequence[int], dampings: Sequence[float], found: Sequence[int], threads: int
) -> None:
    """:func:`damped_inverse` of many factors.

    Args:
        factors: for each 0 for float32 or 1 for float64, its size, and how many entries its rows lie apart.
        pointers: their addresses.
        dampings: what each gets of the identity.
        found: addresses of the results.
        threads: how many share the work.

    >>> a, found = array("d", [1.0, 1.0, 1.0, 1.0]), array("d", bytes(40))
    >>> start, to = a.buffer_info()[0], found.buffer_info()[0]
    >>> damped_inverses([1, 2, 2, 1, 1, 2], [start, start], [1.0, 3.0], [to, to + 32], threads=1)
    >>> [round(entry, 6) for entry in found]
    [0.666667, -0.333333, -0.333333, 0.666667, 0.25]
    """
    given, to, numbers, added = table(pointers), table(found), table(factors), array("d", dampings)
    places = [values.buffer_info()[0] for values in (numbers, given, added, to)]
    products().hessiod_inverses(len(pointers), *places, threads)


def natural_gradients(
    layers: Sequence[int], blocks: Sequence[int], grads: Sequence[int], found: Sequence[int], threads: int
) -> list[float]:
    """Write ``V = G^-1 grad A^-1`` of many layers and return ``<V, grad>`` of each weight and bias, in doubles.

    It is :func:`hessiod.core.kronecker.precondition.precondition` with the bias as the gradient's last column, and does
    not depend on the number of threads.

    Args:
        layers: for each layer 0 for float32 or 1 for float64, out, in, the sizes of the blocks of A^-1 (of in + 1 with
            a bias) and of G^-1, the places where its blocks begin in ``blocks`` and its gradients in ``grads``, and 1
            if a bias follows the weight there.
        blocks: addresses of the symmetric blocks.
        grads: addresses of the gradients.
        found: addresses of the results; all arrays are dense.
        threads: how many share the work.

    >>> grad, inverse, found = array("d", [1.0, 2.0]), array("d", [3.0, 0.0, 0.0, 4.0]), array("d", [0.0, 0.0])
    >>> half = array("d", [0.5])
    >>> places = [given.buffer_info()[0] for given in (inverse, half, grad, found)]
    >>> natural_gradients([1, 1, 2, 2, 1, 0, 1, 0, 0], places[:2], places[2:3], places[3:], threads=1)
    [9.5]
    >>> list(found)
    [1.5, 4.0]
    """
    sums = array("d", bytes(8 * len(grads)))
    where = [table(values) for values in (layers, blocks, grads, found)]
    places = [values.buffer_info()[0] for values in where]
    products().hessiod_natural(len(layers) // FIELDS, *places, sums.buffer_info()[0], threads)
    return sums.tolist()
