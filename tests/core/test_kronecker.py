"""The Kronecker preconditioner against dense float64 references: the Fisher matrix is built, damped and solved."""

import numpy as np
import pytest

from hessiod.backends import load
from hessiod.core.kronecker import damping, factors, inverses, precondition, trust_region, unitwise

BACKENDS = ("numpy", "torch", "mindspore")
METHODS = tuple(inverses.INVERSES)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-11}


def rows(seed, number, size):
    return np.random.default_rng(seed).normal(size=(number, size)) * np.linspace(0.5, 2.0, size)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


class Native:
    """Core functions on a backend's arrays, from and to numpy."""

    def __init__(self, name, dtype):
        self.backend, self.dtype = load(name), dtype
        self.xp = self.backend.namespace

    def give(self, array):
        return self.backend.from_numpy(np.asarray(array, self.dtype))

    def take(self, array):
        return np.asarray(self.backend.to_numpy(array), np.float64)

    def factors(self, inputs, outputs, targets, loss_gradient=1.0):
        a = factors.second_moment(self.xp, self.give(inputs))
        g = factors.second_moment(self.xp, self.give(outputs))
        scalars = factors.gradient_scale(targets=targets, loss_gradient=loss_gradient)
        a = factors.input_factor(self.xp, a, inverse_rows=self.give(1.0 / len(inputs)))
        return a, factors.gradient_factor(self.xp, g, **self.given(scalars))

    def given(self, scalars):
        return {name: self.give(value) for name, value in scalars.items()}

    def direction(self, grad, a, g, damp, method="cholesky", block=None):
        traces, sizes = [self.xp.trace(factor) for factor in (a, g)], [factor.shape[-1] for factor in (a, g)]
        pair = damping.factored(self.xp, *traces, *sizes, **self.given(damping.root_scalars(damping=damp)))
        invert = inverses.INVERSES[method]
        found = [
            inverses.block_inverses(self.xp, factor, added, inverse=invert, block=block)
            for factor, added in zip((a, g), pair, strict=True)
        ]
        return precondition.precondition(self.xp, self.give(grad), *found)


def dense_direction(grad, a, g, damp, block=None):
    """Solve ``(A + pi r I) (x) (G + r / pi I)`` as one dense matrix; what is outside of blocks is 0."""
    pi = np.sqrt(np.trace(a) / len(a) / (np.trace(g) / len(g)))
    masks = []
    for factor in (a, g):
        place = np.arange(len(factor)) // (block or len(factor))
        masks.append(place[:, None] == place[None, :])
    a = a * masks[0] + pi * np.sqrt(damp) * np.eye(len(a))
    g = g * masks[1] + np.sqrt(damp) / pi * np.eye(len(g))
    fisher = np.kron(a, g)  # of the columns of W, one below the other
    return np.linalg.solve(fisher, grad.T.ravel()).reshape(grad.T.shape).T


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("block", [None, 3, 100])
def test_the_direction_is_the_dense_solution(name, method, dtype, block):
    native = Native(name, dtype)
    inputs, outputs = rows(0, 40, 7), rows(1, 40, 5)
    grad = outputs.T @ inputs / 40
    a, g = native.factors(inputs, outputs, 40)
    found = native.take(native.direction(grad, a, g, 1e-1, method, block))
    block = None if block == 100 else block
    expected = dense_direction(grad, inputs.T @ inputs / 40, outputs.T @ outputs / 40, 1e-1, block)
    assert relative(found, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", BACKENDS)
def test_groups_are_leading_axes(name):
    native = Native(name, np.float64)
    inputs, outputs = np.stack([rows(k, 30, 4) for k in range(3)]), np.stack([rows(9 + k, 30, 2) for k in range(3)])
    grad = np.swapaxes(outputs, 1, 2) @ inputs / 30
    a, g = (factors.second_moment(native.xp, native.give(x)) * native.give(1 / 30) for x in (inputs, outputs))
    for method in METHODS:
        found = native.take(native.direction(grad, a, g, 1e-2, method))
        for k in range(3):
            dense = [x[k].T @ x[k] / 30 for x in (inputs, outputs)]
            assert relative(found[k], dense_direction(grad[k], *dense, 1e-2)) < 1e-10


def test_blocks_at_least_as_large_as_the_matrix_are_kfac_bit_for_bit():
    native = Native("numpy", np.float32)
    inputs, outputs = rows(0, 40, 7), rows(1, 40, 5)
    a, g = native.factors(inputs, outputs, 40)
    whole, large = (native.direction(outputs.T @ inputs, a, g, 1e-2, block=block) for block in (None, 7))
    assert np.array_equal(whole, large)


def test_one_linear_layer_with_a_squared_error_has_its_exact_natural_gradient():
    """There ``g = output - y`` with y normal about the output: G is the identity, and the Fisher matrix is A (x) I."""
    native = Native("numpy", np.float64)
    inputs = rows(0, 50, 6)
    grad = rows(1, 4, 6)
    a = inputs.T @ inputs / 50
    found = native.direction(grad, a, np.eye(4), 1e-14)
    fisher = sum(np.kron(np.outer(x, x), np.eye(4)) for x in inputs) / 50
    expected = np.linalg.solve(fisher, grad.T.ravel()).reshape(6, 4).T
    assert relative(found, expected) < 1e-5


def test_a_batch_of_one_has_the_exact_fisher_matrix():
    """A mean over one example of ``(a a') (x) (g g')`` is the Kronecker product of two means."""
    x, g = rows(0, 1, 6), rows(1, 1, 4)
    native = Native("numpy", np.float64)
    a_factor, g_factor = native.factors(x, g, 1)
    vector = np.kron(x[0], g[0])
    product = precondition.fisher_product(native.xp, rows(2, 4, 6), a_factor, g_factor)
    expected = np.outer(vector, vector) @ rows(2, 4, 6).T.ravel()
    assert relative(product.T.ravel(), expected) < 1e-13


@pytest.mark.parametrize("copies", [2, 8])
def test_damping_does_not_depend_on_the_size_of_the_batch(copies):
    """The same examples several times over: same mean gradient, same factors, same direction."""
    native = Native("numpy", np.float64)
    inputs, outputs = rows(0, 20, 6), rows(1, 20, 4)
    grad = outputs.T @ inputs / 20
    once = native.direction(grad, *native.factors(inputs, outputs, 20), 1e-2)
    many = native.factors(np.tile(inputs, (copies, 1)), np.tile(outputs, (copies, 1)), 20 * copies)
    assert relative(native.direction(grad, *many, 1e-2), once) < 1e-12


def test_gradients_of_the_mean_and_of_a_scaled_loss_give_the_same_factor():
    native = Native("numpy", np.float64)
    inputs, outputs = rows(0, 20, 6), rows(1, 20, 4)
    expected = native.factors(inputs, outputs, 20)[1]
    for factor in (1 / 20, 1024 / 20):
        assert relative(native.factors(inputs, factor * outputs, 20, factor)[1], expected) < 1e-14


def test_pi_makes_the_direction_independent_of_how_a_constant_is_shared_out():
    native = Native("numpy", np.float64)
    inputs, outputs = rows(0, 20, 6), rows(1, 20, 4)
    a, g = native.factors(inputs, outputs, 20)
    grad = outputs.T @ inputs
    assert relative(native.direction(grad, 49 * a, g / 49, 1e-2), native.direction(grad, a, g, 1e-2)) < 1e-12


@pytest.mark.parametrize("dead", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_a_dead_layer_is_damped_as_if_pi_were_one(dead):
    native = Native("numpy", np.float32)
    found = native.direction(np.ones((4, 6)), native.give(dead[0] * np.eye(6)), native.give(dead[1] * np.eye(4)), 1e-2)
    expected = 1 / ((dead[0] + 0.1) * (dead[1] + 0.1))
    np.testing.assert_allclose(found, np.full((4, 6), expected), rtol=1e-6)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_bias_is_a_column_of_ones(name):
    native = Native(name, np.float64)
    inputs = rows(0, 5, 3)
    found = native.take(factors.with_ones(native.xp, native.give(inputs)))
    assert np.array_equal(found, np.hstack([inputs, np.ones((5, 1))]))


@pytest.mark.parametrize("name", BACKENDS)
def test_embeddings_have_a_diagonal_factor(name):
    native = Native(name, np.float64)
    tokens, outputs = np.array([0, 2, 2, 4, 2, 0]), rows(1, 6, 3)
    onehot = np.eye(5)[tokens]
    grad = onehot.T @ outputs / 6
    a, g = onehot.T @ onehot / 6, outputs.T @ outputs / 6
    pi = np.sqrt(np.trace(a) / 5 / (np.trace(g) / 3))
    expected = dense_direction(grad.T, a, g, 0.04).T
    inverse_a = inverses.diagonal_inverse(native.xp, native.give(np.diag(a)), native.give(pi * 0.2))
    inverse_g = inverses.block_inverses(
        native.xp, native.give(g), native.give(0.2 / pi), inverse=inverses.cholesky_inverse, block=None
    )
    found = precondition.precondition_embedding(native.xp, native.give(grad), inverse_a, inverse_g)
    assert relative(native.take(found), expected) < 1e-12
    product = precondition.fisher_product_embedding(
        native.xp, native.give(grad), native.give(np.diag(a)), native.give(g)
    )
    assert relative(native.take(product), a @ grad @ g) < 1e-12


@pytest.mark.parametrize("name", BACKENDS)
def test_unit_wise_blocks_are_the_dense_two_by_two_solution(name):
    native = Native(name, np.float64)
    scale, shift = rows(0, 30, 6), rows(1, 30, 6)
    shift[:, 0] = 2 * scale[:, 0]  # a singular block, which damping alone makes invertible
    grads = scale.mean(0, keepdims=True), shift.mean(0, keepdims=True)
    sums = unitwise.unit_sums(native.xp, native.give(scale), native.give(shift))
    means = [total * native.give(1 / 30) for total in sums]
    found = unitwise.precondition_unit(native.xp, *map(native.give, grads), *means, damping=native.give(1e-3))
    for channel in range(6):
        pair = np.stack([scale[:, channel], shift[:, channel]])
        block = pair @ pair.T / 30 + 1e-3 * np.eye(2)
        expected = np.linalg.solve(block, [grads[0][0, channel], grads[1][0, channel]])
        assert relative([native.take(part)[0, channel] for part in found], expected) < 1e-9


def test_a_unit_wise_block_that_rounding_made_indefinite_is_still_solved():
    gg, gb, bb = (np.array([value], np.float32) for value in (1.0, 1.0 + 2**-20, 1.0))
    found = unitwise.precondition_unit(load("numpy").namespace, np.ones(1), np.ones(1), gg, gb, bb, damping=1e-3)
    assert np.isfinite(found).all()
    assert (np.abs(found) < 1e3).all()


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5])
@pytest.mark.parametrize("method", METHODS)
def test_inverses_in_float32_against_float64(method, condition):
    """The error of an inverse grows with the condition number times half an ULP: 4 times that is allowed."""
    native = Native("numpy", np.float32)
    basis, _ = np.linalg.qr(rows(3, 40, 40))
    matrix = basis @ np.diag(np.geomspace(1, condition, 40)) @ basis.T
    zero = native.give(np.zeros((1, 1)))
    found = inverses.INVERSES[method](native.xp, native.give(matrix), zero)
    expected = np.linalg.inv(native.give(matrix).astype(np.float64))
    assert relative(found, expected) < 4 * condition * 2**-24


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("method", ["cholesky", "newton-schulz"])
def test_a_matrix_that_is_not_positive_definite_gives_no_finite_inverse(name, method):
    native = Native(name, np.float32)
    with np.errstate(all="ignore"):
        found = inverses.INVERSES[method](native.xp, native.give(np.diag([1.0, -0.5, 2.0])), 0.0)
    assert not np.isfinite(native.take(found)).all()


def test_eigenvalues_below_zero_are_rounding_and_count_as_zero():
    native = Native("numpy", np.float64)
    found = inverses.eigen_inverse(native.xp, np.diag([1.0, -1e-9, 2.0]), np.array([[0.5]]))
    np.testing.assert_allclose(found, np.diag([1 / 1.5, 2.0, 0.4]), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_trust_region_bounds_the_quadratic_kl(name):
    """After scaling, ``lr^2 nu^2 <V, grad>`` is at most kappa, and smaller steps are left as they are."""
    native = Native(name, np.float64)
    v, grad = rows(0, 4, 6), rows(0, 4, 6) * 3.0
    for lr in (1e-4, 1e-2, 1.0):
        change = native.give(lr**2) * trust_region.inner_product(native.xp, native.give(v), native.give(grad))
        nu = float(native.take(trust_region.kl_scale(native.xp, change, clip=native.give(1e-3))))
        plain = lr**2 * float(np.sum(v * grad))
        assert nu**2 * plain <= 1e-3 * (1 + 1e-6)
        assert (nu == 1.0) == (plain <= 1e-3)


def test_the_running_average_is_an_even_mean_first_and_exponential_later():
    xp, statistics = load("numpy").namespace, rows(0, 60, 3)
    factor = np.zeros(3)
    for k, statistic in enumerate(statistics, start=1):
        factor = factors.average(xp, factor, statistic, **factors.average_scalars(decay=0.95, refreshes=k))
        if k == 15:
            np.testing.assert_allclose(factor, statistics[:15].mean(0), rtol=1e-12)
    before = statistics[:20].mean(0)  # 1 - 1/20 is the decay
    for statistic in statistics[20:]:
        before = 0.95 * before + 0.05 * statistic
    np.testing.assert_allclose(factor, before, rtol=1e-12)


def published_kfac_pytorch(inputs, mean_gradients, damp):
    """The direction of kfac-pytorch's eigen method as its documentation and paper (arXiv:2107.01739) give it.

    G is the second moment of the gradients of the *mean* loss, and damping is added to the eigenvalues' products.
    """
    a, g = inputs.T @ inputs / len(inputs), mean_gradients.T @ mean_gradients / len(inputs)
    (da, qa), (dg, qg) = np.linalg.eigh(a), np.linalg.eigh(g)
    return qg @ ((qg.T @ (mean_gradients.T @ inputs) @ qa) / (np.outer(dg, da) + damp)) @ qa.T


def cosine(one, other):
    return float(np.sum(one * other) / np.linalg.norm(one) / np.linalg.norm(other))


def test_kfac_pytorchs_direction_is_ours_without_damping_and_depends_on_the_batch_with_it():
    native = Native("numpy", np.float64)

    def both(copies, damp):
        inputs, outputs = np.tile(rows(0, 40, 6), (copies, 1)), np.tile(rows(1, 40, 4), (copies, 1))
        number = len(inputs)
        ours = native.direction(outputs.T @ inputs / number, *native.factors(inputs, outputs, number), damp)
        return ours, published_kfac_pytorch(inputs, outputs / number, damp)

    ours, theirs = both(1, 1e-16)
    assert cosine(ours, theirs) > 1 - 1e-9
    assert relative(theirs, 40**2 * ours) < 1e-6  # their G is N^2 smaller
    (ours, theirs), (ours_twice, theirs_twice) = both(1, 1e-3), both(4, 1e-3)
    assert cosine(ours, ours_twice) > 1 - 1e-12
    assert cosine(theirs, theirs_twice) < 0.999  # another direction for the same examples given four times
