"""Two and four gloo processes against one: weights, memory, bytes, resuming, refusing."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import kronecker_ranks as ranks_module
import parallel_ranks

from hessiod.backends_torch.kronecker.discover import discover
from hessiod.backends_torch.kronecker.distributed import Cluster
from hessiod.backends_torch.kronecker.triangles import packed, unpacked
from hessiod.core import InvalidArgument, InvalidState
from hessiod.core.kronecker.owners import LayerSize, assign, inverse_cost, rank_bytes, step_bytes
from hessiod.torch import KFAC


@pytest.fixture(scope="module")
def alone():
    """Every method in one process: weights and bytes of state."""
    found = {}
    for name in ranks_module.METHODS:
        model, opt = ranks_module.train(name)
        found[name] = ranks_module.flat(model), ranks_module.state_bytes(opt)
    return found


@pytest.fixture(scope="module", params=[2, 4], ids=["2 processes", "4 processes"])
def runs(request, tmp_path_factory):
    """What every rank found."""
    cases = {case: partial(ranks_module.spread, *case) for case in ranks_module.CASES}
    others = (ranks_module.resumed, ranks_module.refused, ranks_module.drift, ranks_module.scaled)
    other = {function.__name__: function for function in others}
    return parallel_ranks.run(cases | other, request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", ranks_module.CASES, ids=lambda case: "-".join(map(str, case)))
def test_weights_equal_those_of_one_process_on_every_rank(runs, alone, case):
    expected = alone[case[0]][0]
    for found in runs:
        assert (found[case]["weights"] - expected).abs().max() < 1e-5
        assert torch.equal(found[case]["weights"], runs[0][case]["weights"])
        assert found[case]["due"] == runs[0][case]["due"]


@pytest.mark.parametrize("case", ranks_module.CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_first_steps_bytes_are_the_formulas(runs, case):
    for found in runs:
        assert found[case]["bytes"] == found[case]["formula"]


@pytest.mark.parametrize("name", ranks_module.METHODS)
def test_memory_is_spread_over_the_owners(runs, alone, name):
    """All of the state is somewhere, once."""
    whole = alone[name][1]
    spread = [found[name, "owner", False]["state"] for found in runs]
    assert sum(spread) == whole
    assert max(spread) < whole


def test_every_rank_or_one_rank_holds_everything(runs, alone):
    whole = alone["kfac"][1]
    assert [found["kfac", "every", False]["state"] for found in runs] == [whole] * len(runs)
    assert [found["kfac", "one", False]["state"] for found in runs] == [whole] + [0] * (len(runs) - 1)


def test_a_run_resumed_from_each_ranks_own_state_is_the_same(runs):
    for found in runs:
        assert torch.equal(found["resumed"], found["spngd", "owner", False]["weights"])


def test_nan_on_one_rank_is_refused_on_all(runs):
    assert all(found["refused"] for found in runs)


def test_infinity_that_one_ranks_scaler_finds_is_passed_over_by_all(runs):
    """From then on the scales differ, and the weights do not."""
    expected = ranks_module.without_the_spoiled()
    for found in runs:
        assert (found["scaled"]["weights"] - expected).abs().max() < 1e-10
        assert torch.equal(found["scaled"]["weights"], runs[0]["scaled"]["weights"])
        assert found["scaled"]["steps"] == ranks_module.STEPS - 1
    assert [found["scaled"]["scale"] for found in runs] == [1024.0] * (len(runs) - 1) + [512.0]


def test_ranks_that_would_drift_apart_are_refused(runs):
    for found in runs:
        assert found["drift"].startswith(
            f"process_group: found None among {len(runs)} ranks, whose weights would drift"
        )


# Without processes


def test_triangles_hold_all_of_a_symmetric_matrix():
    matrix = torch.randn(3, 5, 5)
    matrix = matrix + matrix.mT
    assert packed("g", matrix).numel() == 3 * 15
    assert torch.equal(unpacked("g", packed("g", matrix), (3, 5, 5)), matrix)
    for name, other in (("a", torch.arange(6.0)), ("f", torch.arange(9.0).view(3, 3))):
        assert torch.equal(unpacked(name, packed(name, other), tuple(other.shape)), other)


def test_owners_are_balanced_by_cost():
    costs = [float(i % 7 + 1) ** 3 for i in range(60)]
    owners = assign(costs, 8)
    loads = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == rank) for rank in range(8)]
    assert max(loads) <= 4 / 3 * max(sum(costs) / 8, max(costs))
    assert assign(costs, 8) == owners


def test_what_is_cheap_to_invert_leaves_its_owner_room_for_more():
    """An embedding's A is a diagonal, a normalisation's blocks are 2 x 2, a convolution with groups has many small."""
    model = torch.nn.ModuleDict(
        {
            "words": torch.nn.Embedding(5000, 16),
            "norm": torch.nn.LayerNorm(512),
            "depthwise": torch.nn.Conv2d(64, 64, 3, groups=64, bias=False),
            "first": torch.nn.Linear(63, 64),
            "second": torch.nn.Linear(63, 64),
        }
    )
    layers = discover(model, set(model.parameters()), ()).layers
    costs = {layer.name: layer.inverse_cost(None) for layer in layers}
    linear = 2 * 64.0**3
    assert costs == {
        "words": 16.0**3 + 1,
        "norm": 0.0,
        "depthwise": 64 * (9.0**3 + 1),
        "first": linear,
        "second": linear,
    }
    ranks = SimpleNamespace(layers=layers, params=list(model.parameters()), size=2, placement="owner")
    owner_of = Cluster._assigned(ranks, None)
    owners = {layer.name: owner_of[layer] for layer in layers}
    assert owners["first"] != owners["second"]  # by the cube of its tokens one rank would have the embedding alone
    assert owners["words"] != owners["depthwise"]


def test_blocks_make_inverses_cheaper_by_the_square_of_their_number():
    assert inverse_cost(2048, 2048) / inverse_cost(2048, 2048, block=128) == 256


def test_memory_of_many_equal_layers_falls_as_one_over_the_ranks():
    layers = [LayerSize(256, 257)] * 1024
    one = rank_bytes(layers, 1)[0]
    for ranks in (2, 16, 128, 1024):
        assert rank_bytes(layers, ranks) == [one // ranks] * ranks
    assert step_bytes(layers) == 4 * 1024 * (2 * 256 * 257 + 256 * 257 // 2 + 257 * 258 // 2 + 1)


def test_what_several_processes_need():
    with pytest.raises(InvalidState, match=r"torch\.distributed is not initialized; call init_process_group first"):
        KFAC(torch.nn.Linear(2, 2), process_group=True)
    with pytest.raises(InvalidArgument, match="placement: found 'all', expected one of owner, every, one"):
        KFAC(torch.nn.Linear(2, 2), process_group=True, placement="all")
    with pytest.raises(InvalidArgument, match="adapt_every: on several processes it needs placement='every'"):
        KFAC(torch.nn.Linear(2, 2), process_group=True, adapt_every=5)
