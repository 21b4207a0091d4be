import re
from pathlib import Path

import pytest

from hessiod.conformance.kernels import subjects
from hessiod.conformance.mutation import Mutant, caught, mutants
from hessiod.conformance.source_mutation import source_caught, source_mutants
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


def test_every_mutant_of_the_kronecker_functions_is_caught_but_those_of_the_documentation():
    every = list(source_mutants())
    survivors = {f"{mutant}".rpartition(" in line")[0] for mutant in every if not source_caught(mutant)}
    assert len(every) > 200
    assert survivors == {
        "factors.average_scalars: Sub has its operands swapped",
        "inverses.cholesky_inverse: the index 1 is one larger",
        "inverses.diagonal_blocks: the index 1 is one larger",
        "inverses.newton_schulz_inverse: the index 1 is one larger",
        "inverses.newton_schulz_inverse: transpose is left out",
        "precondition.times_blocks: the index 1 is one larger",
        "trust_region.kl_scale: maximum is left out",
    }


def test_the_documentation_names_tests_that_exist():
    """docs/mutation.md: a test for each backend that is broken on purpose."""
    root = Path(__file__).parents[2]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", (root / "docs" / "mutation.md").read_text())
    assert len(named) >= 20
    for file, test in named:
        path = root / file if "/" in file else Path(__file__).with_name(file)
        assert f"def {test}(" in path.read_text(), f"{file}::{test}"
