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
