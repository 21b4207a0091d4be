import re
from pathlib import Path

import pytest

from hessiod.conformance.kernels import subjects
from hessiod.conformance.mutation import Mutant, caught, mutants
from hessiod.core.trace import trace

SUBJECTS = {subject.name: subject for subject in subjects()}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_kernel_as_it_is_passes(name):
    assert not caught(Mutant(SUBJECTS[name], trace(SUBJECTS[name].kernel), "nothing"))


@pytest.mark.parametrize("name", ["sophia.step", "sophia.refresh", "sgd-nesterov.step", "diagonal-newton-sqrt.step"])
def test_every_mutant_is_caught(name):
    every = list(mutants(SUBJECTS[name]))
    assert len(every) >= 8
    assert [mutant.change for mutant in every if not caught(mutant)] == []


def test_the_documentation_names_tests_that_exist():
    """docs/mutation.md: a test for each backend that is broken on purpose."""
    root = Path(__file__).parents[2]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", (root / "docs" / "mutation.md").read_text())
    assert len(named) >= 20
    for file, test in named:
        path = root / file if "/" in file else Path(__file__).with_name(file)
        assert f"def {test}(" in path.read_text(), f"{file}::{test}"
