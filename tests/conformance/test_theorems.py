from dataclasses import replace

import pytest

from hessiod.backends import load
from hessiod.conformance import suite, theorems
from hessiod.conformance.case import FAIL, PASS
from hessiod.conformance.selection import NONE_KNOWN
from hessiod.core.rules import RULES


def rows(name="numpy"):
    return list(suite.run_checks(list(theorems.theorem_checks(load(name))), NONE_KNOWN))


@pytest.mark.parametrize("name", ["numpy", "torch", "onnx"])
def test_every_theorem_holds(name):
    found = rows(name)
    assert {row.verdict for row in found} == {PASS}
    assert {row.rule for row in found} == {
        "apollo",
        "apollo-l2",
        "apollo-decoupled",
        "apollo-stable",
        "sophia",
        "adahessian",
    }


@pytest.mark.parametrize(
    ("rule", "part", "scalar", "change", "caught"),
    [
        ("apollo-l2", "step", "sigma", lambda value: 0.01, "invariance"),
        ("apollo-l2", "step", "floor", lambda value: 0.05, "secant"),
        ("apollo-l2", "step", "floor", lambda value: value * 1.001, "calm"),
        ("apollo-decoupled", "step", "floor", lambda value: value * 1.001, "calm"),
        ("apollo-stable", "step", "floor", lambda value: -value, "calm"),
        ("sophia", "step", "rho", lambda value: value * value, "limits"),
        ("sophia", "step", "eps", lambda value: 0.4, "limits"),
        ("adahessian", "refresh", "take", lambda value: value * 1.0001, "reduction"),
    ],
)
def test_a_rule_for_which_one_does_not_hold_is_caught(monkeypatch, rule, part, scalar, change, caught):
    kernel = getattr(RULES[rule], part)
    monkeypatch.setitem(RULES, rule, replace(RULES[rule], **{part: Changed(kernel, scalar, change)}))
    assert caught in {row.id.split("/")[4] for row in rows() if row.verdict == FAIL}


class Changed:
    """A kernel one of whose scalars is wrong."""

    def __init__(self, kernel, scalar, change):
        self.kernel, self.scalar, self.change = kernel, scalar, change

    def __getattr__(self, name):
        return getattr(self.kernel, name)

    def scalars_from(self, values):
        found = dict(self.kernel.scalars_from(values))
        return found | {self.scalar: self.change(found[self.scalar])}
