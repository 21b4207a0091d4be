"""Inverses of damped factors: the same matrix by three methods, whole or in blocks on the diagonal.

``cholesky``        through the Cholesky factor; the fastest where there is a kernel for it
``eigen``           through eigenvalues, the negative ones (rounding) taken for 0; same damping, same matrix
``newton-schulz``   matrix products only: for devices that have no kernel for either

Each is a function of a factor ``[..., d, d]`` and its damping ``[..., 1, 1]``. A damped factor that is not positive
definite gives entries that are not finite (or an error of the framework's, see the contract's ``spd_inverse``), except
by eigenvalues. Factors are float32 or wider: a factor rounded to bfloat16 is not positive definite.
"""

from __future__ import annotations

BLOCK = 128
"""THOR's size of the blocks on the diagonal."""

ITERATIONS = 30
"""Steps of Newton-Schulz: each doubles the digits once the residual is below 1, which takes log2(condition) steps."""


def cholesky_inverse(xp, factor, damping):
    """``(A + damping I)^-1`` through the Cholesky factor."""
    return xp.spd_inverse(factor + damping * xp.eye(factor.shape[-1], factor))


def eigen_inverse(xp, factor, damping):
    """``Q (max(D, 0) + damping)^-1 Q'`` with ``A = Q D Q'``; ``cholesky_inverse`` where A is semidefinite."""
    values, vectors = xp.eigh(factor)
    scaled = vectors / (xp.maximum(values, 0.0)[..., None, :] + damping)
    return xp.matmul(scaled, xp.transpose(vectors))


def newton_schulz_inverse(xp, factor, damping):
    """``X <- X (2 I - A X)`` from ``X = I / |A|_F``, with A damped (Schulz, 1933): matrix products only.

    Every eigenvalue of ``I - A X`` starts in [0, 1) and is squared in each step. Each step takes the mean of X and its
    transpose, so that the result is symmetric and rounding does not grow.
    """
    eye = xp.eye(factor.shape[-1], factor)
    matrix = factor + damping * eye
    inverse = eye / xp.frobenius(matrix)
    for _ in range(ITERATIONS):
        inverse = xp.matmul(inverse, 2.0 * eye - xp.matmul(matrix, inverse))
        inverse = 0.5 * (inverse + xp.transpose(inverse))
    return inverse


INVERSES = {"cholesky": cholesky_inverse, "eigen": eigen_inverse, "newton-schulz": newton_schulz_inverse}


def block_bounds(size, block):
    """Where the blocks on the diagonal begin and end; one block if ``block`` is None or not below ``size``.

    >>> block_bounds(300, 128), block_bounds(100, 128), block_bounds(5, None)
    ([(0, 128), (128, 256), (256, 300)], [(0, 100)], [(0, 5)])
    """
    block = size if block is None else block
    return [(start, min(start + block, size)) for start in range(0, size, block)]


def block_shapes(shape, block):
    """The shapes of a factor's blocks; a factor that is a diagonal, as a vector, is one.

    >>> block_shapes((2, 3, 3), 2), block_shapes((10,), 2)
    ([(2, 2, 2), (2, 1, 1)], [(10,)])
    """
    if len(shape) == 1:
        return [shape]
    return [(*shape[:-2], stop - start, stop - start) for start, stop in block_bounds(shape[-1], block)]


def diagonal_blocks(xp, factor, block):
    """The blocks on the diagonal of ``[..., d, d]``, as a list of ``[..., b, b]``."""
    return [factor[..., start:stop, start:stop] for start, stop in block_bounds(factor.shape[-1], block)]


def block_inverses(xp, factor, damping, *, inverse, block):
    """The inverses of the damped blocks; ``inverse`` is one of :data:`INVERSES`' functions."""
    return [inverse(xp, part, damping) for part in diagonal_blocks(xp, factor, block)]


def diagonal_inverse(xp, diagonal, damping):
    """``1 / (a + damping)`` for a diagonal factor, such as an embedding's A; shapes ``[d]`` and 0-d."""
    return 1.0 / (diagonal + damping)
