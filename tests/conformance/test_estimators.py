from types import SimpleNamespace

import numpy as np
import pytest

from hessiod.backends import load
from hessiod.backends.numpy import NumpyBackend, namespace
from hessiod.conformance import estimators, suite
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED
from hessiod.conformance.selection import NONE_KNOWN
from hessiod.core import philox


def rows_of(backend):
    return list(suite.run_checks(list(estimators.estimator_checks(backend)), NONE_KNOWN))


def failures(backend):
    return {row.rule for row in rows_of(backend) if row.verdict == FAIL}


def test_torch_has_all_and_numpy_all_but_what_needs_derivatives():
    assert {row.verdict for row in rows_of(load("torch"))} == {PASS}
    verdicts = {row.rule: row.verdict for row in rows_of(load("numpy"))}
    assert {rule for rule, verdict in verdicts.items() if verdict != PASS} == {"hutchinson"}
    assert verdicts["hutchinson"] == UNSUPPORTED


KRONECKER = {"kronecker.cholesky", "kronecker.eigen", "kronecker.newton-schulz"}
SAMPLED = {"categorical", "bernoulli", "gaussian", "gauss-newton-bartlett"}


@pytest.mark.parametrize(
    ("name", "broken", "caught"),
    [
        ("shift_right", lambda x, n: x >> (n + 1), {"philox", "rademacher", "normal", *SAMPLED}),
        ("cumsum", lambda x: np.cumsum(x[..., ::-1], axis=-1), {"categorical", "gauss-newton-bartlett"}),
        ("cos", np.sin, {"normal", "gaussian"}),
        ("matmul", lambda x, y: np.matmul(x, y) * np.float32(1.01), KRONECKER),
        ("trace", lambda x: np.trace(x, axis1=-2, axis2=-1)[..., None, None] * 2 + 1, KRONECKER),
        ("eigh", lambda x: np.linalg.eigh(x)[::-1], {"kronecker.eigen"}),
        ("spd_inverse", lambda x: np.linalg.inv(x).T * np.float32(1.001), {"kronecker.cholesky"}),
    ],
)
def test_a_broken_function_is_caught_where_it_is_used(name, broken, caught):
    backend = NumpyBackend()
    backend.namespace = SimpleNamespace(**{entry: getattr(namespace, entry) for entry in namespace.__all__})
    setattr(backend.namespace, name, broken)
    assert failures(backend) == caught


@pytest.mark.parametrize("forgotten", ["step", "index", "sample"])
def test_words_that_forget_a_part_of_their_counter_differ_from_the_reference(monkeypatch, forgotten):
    backend, words = NumpyBackend(), philox.words
    backend.namespace = SimpleNamespace(**{entry: getattr(namespace, entry) for entry in namespace.__all__})

    def only_there(xp, block, **at):
        return words(xp, block, **(at | {forgotten: 0} if xp is backend.namespace else at))

    monkeypatch.setattr(philox, "words", only_there)
    assert "philox" in failures(backend)
