"""The array functions against numpy, and the generator bit for bit, eagerly and in a graph."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from hessiod.backends.contract import LINEAR_ALGEBRA, NAMESPACE
from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.backends_mindspore import namespace as xp
from hessiod.core import philox

REALS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
POSITIVE = np.abs(REALS) + np.float32(0.1)
OTHER = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
INTEGERS = np.random.default_rng(2).integers(2**32, size=(3, 5))
DTYPES = ("int64", "float32", "float64")

# Name: arguments, and the ULPs that a transcendental function may be from the truth. MindSpore's exp and log of float32
# on CPU are coarse: up to 341 ULP at |x| = 80 and 1323 ULP near log(1) were seen. In core/ they meet arguments as here.
CALLS = {
    "abs": ((REALS,), 0),
    "sqrt": ((POSITIVE,), 0),
    "pow": ((POSITIVE, 1.5), 2),
    "exp": ((REALS,), 40),
    "log": ((POSITIVE,), 40),
    "cos": ((REALS,), 2),
    "sin": ((REALS,), 2),
    "clip": ((REALS, -0.5, 0.25), 0),
    "minimum": ((REALS, OTHER), 0),
    "maximum": ((REALS, OTHER), 0),
    "sum": ((INTEGERS,), 0),
    "mean": ((np.arange(16, dtype=np.float32).reshape(2, 8),), 0),
    "sum_last": ((INTEGERS,), 0),
    "amax": ((REALS,), 0),
    "cumsum": ((INTEGERS.astype(np.float64),), 0),
    "arange": ((7, REALS), 0),
    "stack": (([REALS, OTHER],), 0),
    "concat": (([REALS[0], OTHER[0], REALS[1]],), 0),
    "reshape": ((REALS, (5, 3)), 0),
    "astype": ((REALS > 0, "float32"), 0),
    "bitwise_and": ((INTEGERS, 0xFFFF0F0F), 0),
    "bitwise_xor": ((INTEGERS, INTEGERS[::-1].copy()), 0),
    "shift_left": ((INTEGERS, 16), 0),
    "shift_right": ((INTEGERS[..., None], np.arange(32)), 0),
}

SYMMETRIC = np.stack(
    [POSITIVE @ POSITIVE.T + np.eye(3, dtype=np.float32), OTHER @ OTHER.T + np.eye(3, dtype=np.float32)]
)
MATRICES = {  # name: arguments; linear algebra is compared within 1e-6, one matrix and two
    "matmul": (SYMMETRIC, REALS),
    "transpose": (REALS,),
    "concat_last": ([REALS, OTHER],),
    "eye": (4, REALS),
    "trace": (SYMMETRIC,),
    "frobenius": (SYMMETRIC,),
    "sum_rows": (SYMMETRIC,),
    "spd_inverse": (SYMMETRIC,),
    "eigh": (SYMMETRIC,),
}


def native(value):
    if isinstance(value, np.ndarray):
        return Tensor(value)
    return [Tensor(array) for array in value] if isinstance(value, list) else value


def test_every_function_of_the_contract_is_tested():
    assert set(CALLS) | set(DTYPES) == set(NAMESPACE)
    assert [getattr(xp, name) for name in DTYPES] == [ms.int64, ms.float32, ms.float64]


def test_every_function_of_linear_algebra_is_tested():
    assert set(MATRICES) == set(LINEAR_ALGEBRA)


# There is no eigh that can be traced: the only one with a CPU kernel is scipy.linalg's.
ROUTES = [(name, route) for name in MATRICES for route in ("eager", "jit") if (name, route) != ("eigh", "jit")]


@pytest.mark.parametrize(("name", "route"), ROUTES)
def test_linear_algebra_against_numpy(name, route):
    arguments, function = MATRICES[name], getattr(xp, name)
    found = (ms.jit(function) if route == "jit" else function)(*[native(value) for value in arguments])
    expected = getattr(numpy_xp, name)(*arguments)
    if name == "eigh":  # eigenvectors up to their sign
        found, expected = (np.abs(np.concatenate([v[:, None], w], 1)) for v, w in (map(np.asarray, found), expected))
    found = found.asnumpy() if isinstance(found, Tensor) else found
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("route", ["eager", "jit"])
def test_the_inverse_of_a_matrix_that_is_not_positive_definite_is_an_error(route):
    function = ms.jit(xp.spd_inverse) if route == "jit" else xp.spd_inverse
    with pytest.raises(RuntimeError, match="positive definite"):
        function(Tensor(np.diag([1.0, -1.0]).astype(np.float32))).asnumpy()


@pytest.mark.parametrize("route", ["eager", "jit"])
@pytest.mark.parametrize("name", CALLS)
def test_function_against_numpy(name, route):
    arguments, ulps = CALLS[name]
    theirs = [getattr(numpy_xp, value) if isinstance(value, str) else value for value in arguments]
    expected = np.asarray(getattr(numpy_xp, name)(*theirs))
    ours = [getattr(xp, value) if isinstance(value, str) else native(value) for value in arguments]
    function = getattr(xp, name)
    found = (ms.jit(function) if route == "jit" else function)(*ours).asnumpy()
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if ulps:
        truth = np.asarray(getattr(numpy_xp, name)(arguments[0].astype(np.float64), *arguments[1:]))
        assert (np.abs(found - truth) <= ulps * np.spacing(np.abs(truth).astype(np.float32))).all()
    else:
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("route", ["eager", "jit"])
def test_arguments_are_left_alone(route):
    """An in-place operator would change the caller's tensor."""
    for name, (arguments, _) in CALLS.items():
        ours = [getattr(xp, value) if isinstance(value, str) else native(value) for value in arguments]
        if route == "eager":
            getattr(xp, name)(*ours)
        else:
            ms.jit(getattr(xp, name))(*ours)
        for mine, given in zip(ours, arguments, strict=True):
            if isinstance(given, np.ndarray):
                assert mine.asnumpy().tobytes() == given.tobytes(), name


SEED = 2**63 - 12345
LIKES = [np.zeros(shape, np.float32) for shape in ((3, 50), (7,), (1,), (129,))]


def draw_probes(xp, likes, step):
    return philox.rademacher_probes(xp, likes, seed=SEED, step=step, sample=2)


def draw_uniforms(xp, likes, step):
    return [philox.uniforms(xp, like, seed=SEED, step=step, index=3) for like in likes]


def draw_normals(xp, likes, step):
    return [philox.normals(xp, like, seed=SEED, step=step, sample=1) for like in likes]


@ms.jit
def probes_in_a_graph(likes, step):
    return draw_probes(xp, likes, step)


@ms.jit
def uniforms_in_a_graph(likes, step):
    return draw_uniforms(xp, likes, step)


@ms.jit
def normals_in_a_graph(likes, step):
    return draw_normals(xp, likes, step)


DRAWS = {
    "probes": (draw_probes, probes_in_a_graph),
    "uniforms": (draw_uniforms, uniforms_in_a_graph),
    "normals": (draw_normals, normals_in_a_graph),
}


@pytest.mark.parametrize("name", DRAWS)
def test_generator_bit_for_bit(name):
    """In a graph the step is a tensor, and one graph serves all steps."""
    draw, graph = DRAWS[name]
    likes = [Tensor(like) for like in LIKES]
    seen = set()
    for step in (1, 11, 2**20):
        expected = draw(numpy_xp, LIKES, step)
        for found in (draw(xp, likes, step), graph(likes, Tensor(step, ms.int64))):
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.asnumpy().dtype == np.float32
                assert ours.asnumpy().tobytes() == theirs.astype(np.float32).tobytes()
        seen.add(expected[0].tobytes())
    assert len(seen) == 3
