"""A backend that takes MindSpore's eager gradient of a gradient for a Hessian product: level 2 must see it.

Nothing is raised: the tape is lost where a gradient passes a view, and part of the product with it.
"""

import mindspore as ms
import pytest
from mindspore import ops

from hessiod.backends import load
from hessiod.backends_mindspore import namespace
from hessiod.backends_mindspore.autodiff import MindSporeAutodiff
from hessiod.conformance import derivatives, suite
from hessiod.conformance.case import FAIL, PASS
from hessiod.conformance.objectives import OBJECTIVES
from hessiod.conformance.selection import NONE_KNOWN

WRONG = {"logistic", "tanh_network", "attention", "gated_network"}
"""The others' gradients pass no view and then another operator."""


class Eager(MindSporeAutodiff):
    """First derivatives as they should be."""

    def product(self, function, weights, data, vectors):
        def value(*moved):
            return function(namespace, moved, data)

        def slope(*moved):
            return sum(ops.sum(one * vector) for one, vector in zip(gradients(value, moved), vectors, strict=True))

        return gradients(slope, weights)


def gradients(function, arrays):
    """A tuple, of one array too."""
    found = ms.grad(function, tuple(range(len(arrays))))(*arrays)
    return found if isinstance(found, tuple) else (found,)


def check_caught(names, monkeypatch):
    backend = load("mindspore")
    monkeypatch.setattr(type(backend), "autodiff", Eager())
    checks = [
        check for check in derivatives.derivative_checks(backend) if check.rule in names and check.dtype == "float32"
    ]
    rows = {row.id: row.verdict for row in suite.run_checks(checks, NONE_KNOWN)}
    failing = {f"L2/{name}/mindspore/float32/product" for name in WRONG & names}
    assert {name for name, verdict in rows.items() if verdict == FAIL} == failing
    assert {name for name, verdict in rows.items() if verdict == PASS} == set(rows) - failing


def test_eager_gradients_of_gradients_are_caught_by_their_products(monkeypatch):
    check_caught({"quadratic", "logistic"}, monkeypatch)


@pytest.mark.slow
def test_they_are_wrong_in_half_of_the_objectives(monkeypatch):
    check_caught(set(OBJECTIVES), monkeypatch)
