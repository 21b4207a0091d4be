"""Second moments and natural gradients of layers by compiled matrix products, many small ones in one call."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache

from hessiod.backends.kernels import compiler, cpp
from hessiod.backends.kernels.library import loaded, table

FIELDS = 11
"""Numbers that describe a layer to :func:`natural_gradients`."""


@cache
def matrices() -> ctypes.CDLL:
    """The library, in which products and sums are fused."""
    library, pointers, count = loaded(cpp.matrices_source(), compiler.FUSED), ctypes.c_void_p, ctypes.c_int64
    library.hessiod_vector_bytes.restype = count
    library.hessiod_moment.argtypes = [*[count] * 4, pointers, pointers, count]
    library.hessiod_moment.restype = None
    library.hessiod_inverse.argtypes = [count, count, pointers, count, ctypes.c_double, pointers, count]
    library.hessiod_inverse.restype = None
    library.hessiod_natural.argtypes = [count, *[pointers] * 3, count]
    library.hessiod_natural.restype = None
    return library


@cache
def wide() -> bool:
    """Whether the processor has vectors of 32 bytes and more; with less a library is faster (NEON, and AMX beside)."""
    return bool(matrices().hessiod_vector_bytes() >= 32)


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
    matrices().hessiod_moment(cpp.KINDS[dtype], rows, size, ones, pointer, found, threads)


def damped_inverse(size: int, factor: int, row: int, damping: float, found: int, dtype: str, threads: int) -> None:
    """``(A + damping I)^-1`` to ``found``, dense and exactly symmetric; NaN where A is not positive definite with it.

    The rows of A, at ``factor``, lie ``row`` entries apart. It does not depend on the number of threads.

    >>> a, found = array("d", [1.0, 1.0, 1.0, 1.0]), array("d", bytes(32))
    >>> damped_inverse(2, a.buffer_info()[0], 2, 1.0, found.buffer_info()[0], "float64", threads=1)
    >>> [round(entry, 6) for entry in found]
    [0.666667, -0.333333, -0.333333, 0.666667]
    """
    matrices().hessiod_inverse(cpp.KINDS[dtype], size, factor, row, damping, found, threads)


def natural_gradients(layers: Sequence[int], blocks: Sequence[int], threads: int) -> array[float]:
    """``V = G^-1 grad A^-1`` of many layers, and ``<V, grad>`` of each one's weight and bias, in doubles.

    It is :func:`hessiod.core.kronecker.precondition.precondition` with the bias as the gradient's last column, and does
    not depend on the number of threads.

    Args:
        layers: for each its ``FIELDS`` numbers: 0 for float32 or 1 for float64, out, in, the sizes of the blocks of
            A^-1 (of in + 1 with a bias) and of G^-1, the places in ``blocks`` where its blocks begin, and the addresses
            of both gradients and of both results, 0 for those of a bias where there is none. All are dense.
        blocks: addresses of the symmetric blocks.

    >>> grad, inverse, found = array("d", [1.0, 2.0]), array("d", [3.0, 0.0, 0.0, 4.0]), array("d", [0.0, 0.0])
    >>> half = array("d", [0.5])
    >>> places = [given.buffer_info()[0] for given in (grad, found)]
    >>> blocks = [inverse.buffer_info()[0], half.buffer_info()[0]]
    >>> natural_gradients([1, 1, 2, 2, 1, 0, 1, places[0], 0, places[1], 0], blocks, threads=1)
    array('d', [9.5, 0.0])
    >>> list(found)
    [1.5, 4.0]
    """
    count = len(layers) // FIELDS
    products = array("d", bytes(16 * count))
    where = [table(layers), table(blocks)]
    places = [values.buffer_info()[0] for values in where]
    matrices().hessiod_natural(count, *places, products.buffer_info()[0], threads)
    return products
