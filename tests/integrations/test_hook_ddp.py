"""CurvatureHook on DistributedDataParallel: two gloo processes, micro-batches under no_sync."""

import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent))  # spawned processes import the worker by its name

import hook_ranks


@pytest.mark.slow
def test_it_is_a_loop_by_hand_bit_for_bit_and_the_same_on_both_ranks(tmp_path):
    mp.start_processes(hook_ranks.worker, (2, str(tmp_path)), 2, start_method="spawn")
    runs = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    assert list(runs[0]) == hook_ranks.CASES
    for case in hook_ranks.CASES:
        hooked, by_hand = runs[0][case]
        assert torch.equal(hooked, by_hand)
        assert torch.equal(hooked, runs[1][case][0])
        assert hooked.isfinite().all()
