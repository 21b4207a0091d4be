"""The hook and the trainers on two gloo processes, each of which has its part of every batch."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "torch"))

import hook_ranks
import parallel_ranks
import trainer_ranks

FAST = [
    *(("huggingface", name, {}) for name in ("sophia-g", "sophia-h", "kfac-empirical")),
    *(("accelerate", name, {}) for name in ("sophia-g", "sophia-h", "kfac")),
    ("accelerate", "sophia-g", dict(static_graph=True)),
    *(("lightning", name, {}) for name in ("sophia-g", "sophia-h")),
]
VARIANTS = [dict(static_graph=True), dict(gradient_as_bucket_view=True), dict(find_unused_parameters=True)]
WIDE = [
    *((trainer, name, {}) for trainer in trainer_ranks.RUNS for name in trainer_ranks.MAKE),
    *(("accelerate", name, options) for name in trainer_ranks.MAKE for options in VARIANTS),
]
TOLERANCE = 1e-10
"""Relative, in float64. Sophia divides by curvature that is nothing but rounding at some of GPT-2's weights: 7e-12."""


def spread(cases):
    """The cases by their names, as functions of the rank and of their number."""
    return {str(case): partial(trainer_ranks.run, *case) for case in cases}


def compare(found, cases):
    """Both processes' weights are the same bit for bit, and those of one process that has the whole batch."""
    wrong = {}
    for case in cases:
        weights, other = (rank[str(case)] for rank in found)
        assert torch.equal(weights, other), case
        expected = trainer_ranks.run(*case)
        error = float((weights - expected).norm() / expected.norm())
        if not error <= TOLERANCE:
            wrong[str(case)] = error
    assert not wrong


def test_two_processes_train_what_one_trains(tmp_path):
    """In the trainers; and the hook is a loop by hand bit for bit, with micro-batches under no_sync too."""
    hooked = {str(case): partial(hook_ranks.both_ways, *case) for case in hook_ranks.CASES}
    found = parallel_ranks.run(spread(FAST) | hooked, 2, tmp_path)
    compare(found, FAST)
    for case in hooked:
        assert len({weights.numpy().tobytes() for rank in found for weights in rank[case]}) == 1, case
        assert found[0][case][0].isfinite().all()


@pytest.mark.slow
def test_every_optimizer_in_every_trainer(tmp_path):
    compare(parallel_ranks.run(spread(WIDE), 2, tmp_path), WIDE)
