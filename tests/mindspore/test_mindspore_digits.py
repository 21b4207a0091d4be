"""Level 4 on the digits: every optimizer, both frameworks, against the golden losses and against each other."""

import pytest

from hessiod.backends import load
from hessiod.conformance.case import PASS
from hessiod.conformance.problems import DIGITS
from hessiod.conformance.selection import NONE_KNOWN
from hessiod.conformance.suite import run_checks
from hessiod.conformance.trajectories import checks_of_run

SLOW = ("adahessian", "diagonal-newton", "apollow", "momentum", "nesterov")
"""The first two have an estimate in every step, which takes long to compile; test_mindspore_diagonal.py runs them too.
The others are forms of those that stay."""


@pytest.mark.parametrize(
    "optimizer", [pytest.param(name, marks=[pytest.mark.slow][: name in SLOW]) for name in sorted(DIGITS.settings)]
)
def test_torch_and_mindspore_follow_the_golden_losses_and_each_other(optimizer):
    checks = checks_of_run([load("torch"), load("mindspore")], DIGITS, optimizer)
    rows = list(run_checks(list(checks), NONE_KNOWN))
    assert [row.id.split("/", 2)[2] for row in rows] == ["torch/golden/50", "mindspore/golden/50", "mindspore/torch/50"]
    assert {row.verdict for row in rows} == {PASS}, [row.why for row in rows]
