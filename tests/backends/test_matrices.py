"""Compiled matrix products of layers against float64: ends of tiles, of blocks and of depths, and any threads."""

import numpy as np
import pytest

from hessiod.backends.kernels.matrices import (
    damped_inverse,
    damped_inverses,
    natural_gradients,
    second_moment,
    second_moments,
)
from hessiod.backends.numpy import namespace as xp
from hessiod.core.kronecker import factors, precondition

DTYPES = ("float32", "float64")


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def moment(rows, *, ones, threads=1):
    found = np.full((rows.shape[1] + ones,) * 2, np.nan, rows.dtype)
    second_moment(*rows.shape, rows.ctypes.data, found.ctypes.data, rows.dtype.name, threads, ones=ones)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ones", [False, True])
def test_second_moments_are_those_of_float64(dtype, ones):
    generator = np.random.default_rng(0)
    for rows, size in [(1, 1), (5, 7), (256, 32), (257, 33), (600, 65), (40, 130)]:
        x = generator.standard_normal((rows, size)).astype(dtype)
        found, wide = moment(x, ones=ones), x.astype(np.float64)
        expected = factors.second_moment(xp, factors.with_ones(xp, wide) if ones else wide)
        assert error(found, expected) < 4 * np.finfo(dtype).eps, (rows, size)
        assert np.array_equal(found, found.T)
        assert np.array_equal(found, moment(x, ones=ones, threads=2))
    assert not moment(np.ones((0, 3), dtype), ones=ones).any()


@pytest.mark.parametrize(
    "shapes", [[(256, 300), (5, 7), (257, 290), (0, 3)], [(40, 130), (600, 400), (9, 1)]], ids=["shared out", "by all"]
)
def test_second_moments_of_many_are_those_of_each_with_any_threads(shapes):
    """Those that are too small for two threads are shared out; where one is not, each has all threads."""
    generator = np.random.default_rng(3)
    rows = [generator.standard_normal(shape).astype(DTYPES[place % 2]) for place, shape in enumerate(shapes)]
    table = [number for part in rows for number in (DTYPES.index(part.dtype.name), *part.shape)]
    for threads in (1, 2):
        found = [np.full((part.shape[1],) * 2, np.nan, part.dtype) for part in rows]
        second_moments(table, [part.ctypes.data for part in rows], [part.ctypes.data for part in found], threads)
        for part, ours in zip(rows, found, strict=True):
            assert np.array_equal(ours, moment(part, ones=False))


@pytest.mark.parametrize("dtype", DTYPES)
def test_inverses_are_those_of_float64_also_of_a_block_within_a_factor(dtype):
    generator = np.random.default_rng(1)
    for size in (1, 2, 31, 32, 33, 65, 130):
        rows = generator.standard_normal((2 * size, size + 3)).astype(dtype)
        factor, damping = rows.T @ rows / len(rows), 0.1
        block, found = factor[2 : size + 2, 2 : size + 2], np.empty((2, size, size), dtype)
        for threads in (1, 2):
            places = block.ctypes.data, size + 3, damping, found[threads - 1].ctypes.data
            damped_inverse(size, *places, dtype, threads)
        matrix = block.astype(np.float64) + np.dtype(dtype).type(damping) * np.eye(size)
        condition = np.linalg.cond(matrix)
        assert error(found[0], np.linalg.inv(matrix)) < condition * np.finfo(dtype).eps, size
        assert np.array_equal(found[0], found[0].T)
        assert np.array_equal(*found)


@pytest.mark.parametrize("sizes", [(1, 300, 33, 300), (40, 900)], ids=["shared out", "by all"])
def test_inverses_of_many_are_those_of_each_with_any_threads(sizes):
    generator = np.random.default_rng(4)
    rows = [generator.standard_normal((2 * size, size + 1)) for size in sizes]
    factors = [(part.T @ part / len(part)).astype(DTYPES[place % 2]) for place, part in enumerate(rows)]
    factors[0][0, 0] = -1.0  # not positive definite
    table, dampings = [], [0.1 + place for place in range(len(sizes))]
    for size, factor in zip(sizes, factors, strict=True):
        table += [DTYPES.index(factor.dtype.name), size, size + 1]
    for threads in (1, 2):
        found = [np.empty((size, size), factor.dtype) for size, factor in zip(sizes, factors, strict=True)]
        places = [factor.ctypes.data for factor in factors], dampings, [part.ctypes.data for part in found]
        damped_inverses(table, *places, threads)
        for size, factor, damping, ours in zip(sizes, factors, dampings, found, strict=True):
            alone = np.empty_like(ours)
            damped_inverse(size, factor.ctypes.data, size + 1, damping, alone.ctypes.data, ours.dtype.name, 1)
            assert np.array_equal(ours, alone, equal_nan=True)
        assert np.isnan(found[0]).all()
        assert all(np.isfinite(part).all() for part in found[1:])


@pytest.mark.parametrize("bad", [-1.0, -0.1, np.nan])
@pytest.mark.parametrize("place", [0, 31, 32, 69])
def test_a_matrix_that_is_not_positive_definite_has_an_inverse_of_nan(bad, place):
    factor, found = np.eye(70), np.empty((70, 70))
    factor[place, place] = bad
    damped_inverse(70, factor.ctypes.data, 70, 0.05, found.ctypes.data, "float64", 1)
    assert np.isnan(found).all()


def layers_of(dtype):
    """Layers with sizes at the ends of tiles, with and without bias, in one block and in several."""
    generator, layers = np.random.default_rng(2), []
    for out, size, bias, block in [
        (1, 1, 1, None),
        (8, 32, 0, None),
        (33, 64, 1, None),
        (70, 31, 1, 16),
        (128, 300, 1, 128),
    ]:
        sizes = [
            min(block or whole, whole - start)
            for whole in (size + bias, out)
            for start in range(0, whole, block or whole)
        ]
        blocks = [generator.standard_normal((side, side)) for side in sizes]
        blocks = [np.ascontiguousarray((part + part.T) / 2, dtype) for part in blocks]
        count = -(-(size + bias) // (block or size + bias))
        grads = [generator.standard_normal(shape).astype(dtype) for shape in [(out, size), (out,)][: 1 + bias]]
        layers.append((grads, blocks[:count], blocks[count:]))
    return layers


def run(layers, dtype, threads):
    table, blocks, grads = [], [], []
    for given, a, g in layers:
        places = len(blocks), len(blocks) + len(a), len(grads)
        table += [DTYPES.index(dtype), *given[0].shape, len(a[0]), len(g[0]), *places, len(given) - 1]
        blocks += [*a, *g]
        grads += given
    found = [np.full_like(grad, np.nan) for grad in grads]
    addresses = [[part.ctypes.data for part in parts] for parts in (blocks, grads, found)]
    return natural_gradients(table, *addresses, threads), found


@pytest.mark.parametrize("dtype", DTYPES)
def test_natural_gradients_of_many_layers_are_the_cores(dtype):
    layers = layers_of(dtype)
    products, found = run(layers, dtype, threads=1)
    place = 0
    for grads, a, g in layers:
        matrix = np.concatenate([grads[0], *[bias[:, None] for bias in grads[1:]]], 1).astype(np.float64)
        expected = precondition.precondition(
            xp, matrix, *[[part.astype(np.float64) for part in parts] for parts in (a, g)]
        )
        parts = [expected[:, : grads[0].shape[1]], expected[:, -1]][: len(grads)]
        for grad, part in zip(grads, parts, strict=True):
            assert error(found[place], part) < 30 * np.finfo(dtype).eps
            product = (found[place].astype(np.float64) * grad).sum()
            assert abs(products[place] - product) <= 1e-12 * np.abs(found[place].astype(np.float64) * grad).sum()
            place += 1
    again, same = run(layers, dtype, threads=2)
    assert products == again
    assert all(map(np.array_equal, found, same))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_inner_product_is_not_finite_where_a_gradient_is_not(bad):
    for place in (0, 1):
        layers = layers_of("float32")
        layers[3][0][place].flat[-1] = bad
        products, _ = run(layers, "float32", threads=1)
        assert not np.isfinite(sum(products[5:7]))
        assert np.isfinite(products[:5]).all()


def test_large_matrices_have_the_same_bits_on_two_threads():
    """Large enough for both threads to have work."""
    generator = np.random.default_rng(3)
    x = generator.standard_normal((700, 300)).astype(np.float32)
    assert np.array_equal(moment(x, ones=True), moment(x, ones=True, threads=2))
    half = generator.standard_normal((1040, 1040)).astype(np.float32)
    factor, found = half @ half.T / 1040, np.empty((2, 1040, 1040), np.float32)
    for threads in (1, 2):
        damped_inverse(1040, factor.ctypes.data, 1040, 0.1, found[threads - 1].ctypes.data, "float32", threads)
    assert np.array_equal(*found)
    assert np.isfinite(found).all()
    layer = ([x], [np.ascontiguousarray(factor[:300, :300])], [np.ascontiguousarray(factor[:700, :700])])
    (one, ways), (two, others) = (run([layer], "float32", threads) for threads in (1, 2))
    assert one == two
    assert np.array_equal(ways[0], others[0])
