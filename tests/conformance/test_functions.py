from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hessiod.backends import load
from hessiod.backends.numpy import NumpyBackend, namespace
from hessiod.conformance import functions, suite
from hessiod.conformance.arguments import FLOATS
from hessiod.conformance.case import FAIL, PASS
from hessiod.conformance.functions import measure_one
from hessiod.conformance.selection import NONE_KNOWN


def failures(backend):
    rows = suite.run_checks(list(functions.function_checks(backend)), NONE_KNOWN)
    return {row.rule for row in rows if row.verdict == FAIL}


def test_every_function_of_the_contract_is_called():
    assert functions.untested() == set()


def test_numpy_and_torch_have_every_function_right():
    for name in ("numpy", "torch"):
        rows = list(suite.run_checks(list(functions.function_checks(load(name))), NONE_KNOWN))
        assert {row.verdict for row in rows} == {PASS}
        calls = 2 * (len(functions.FLOATS) + len(functions.MATRICES)) - 3 + len(functions.INTEGERS)
        assert len(rows) == 2 * calls  # fixed and drawn


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("abs", lambda x: np.where(x == 0, -x, np.abs(x))),
        ("sqrt", lambda x: np.sqrt(x) * np.asarray(1 + np.finfo(x.dtype).eps, x.dtype)),
        ("exp", lambda x: np.exp(x) * x.dtype.type(1 + 2.0**-11)),
        ("clip", lambda x, low, high: np.minimum(x, x.dtype.type(high))),
        ("sum", lambda x: np.sum(x.ravel()[1:])),
        ("sum_last", lambda x: np.sum(x, axis=-1)),
        ("mean", lambda x: np.sum(x) / x.dtype.type(x.size - 1)),
        ("cumsum", lambda x: np.cumsum(x, axis=0)),
        ("arange", lambda n, like: np.arange(n, dtype=np.int32)),
        ("stack", lambda arrays: np.stack(arrays)),
        ("astype", lambda x, dtype: x),
        ("shift_left", lambda x, n: (x << n).astype(np.int32).astype(np.int64)),
        ("bitwise_xor", np.bitwise_or),
        ("matmul", lambda x, y: np.matmul(y, x)),
        ("transpose", lambda x: x),
        ("trace", lambda x: np.trace(x, axis1=-2, axis2=-1)),
        ("frobenius", lambda x: np.sqrt(np.sum(np.abs(x), axis=(-2, -1), keepdims=True))),
        ("sum_rows", lambda x: np.sum(x, axis=-1, keepdims=True)),
    ],
)
def test_a_broken_function_is_caught_by_its_own_row(name, broken):
    backend = NumpyBackend()
    backend.namespace = SimpleNamespace(**{entry: getattr(namespace, entry) for entry in namespace.__all__})
    setattr(backend.namespace, name, broken)
    assert failures(backend) == {name}


def test_ids_of_checks_and_rows_are_unique():
    checks = suite.plan(suite.choose(["numpy", "torch"]))
    rows = [identity for check in checks for identity in check.case_ids]
    assert len({check.id for check in checks}) == len(checks)
    assert len(set(rows)) == len(rows)


def test_of_two_zeros_either_may_be_the_larger_but_not_of_other_numbers():
    x = np.array([0.0, -0.0, 1.0])
    for name, others in (("clip", (-4.0, -0.0)), ("minimum", (-x,)), ("maximum", (-x,))):
        assert measure_one(name, FLOATS[name], load("torch"), np.dtype("float64"), [x, *others]).passed
    swapped = SimpleNamespace(maximum=torch.minimum)
    broken = SimpleNamespace(namespace=swapped, from_numpy=torch.from_numpy, to_numpy=torch.Tensor.numpy)
    found = measure_one("maximum", FLOATS["maximum"], broken, np.dtype("float64"), [x, -x])
    assert not found.passed
    assert found.why == "bit for bit; entry (2,) differs"
