"""Every optimizer on several gloo processes, against one process that has the whole batch: 20 steps, uneven shards."""

import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import parallel_ranks as grid

from hessiod.backends import parallel_cost as cost


def data_parallel(name, variant="plain", dtype=torch.float64):
    settings = dict(micro=2 if variant == "no-sync" else 1, fresh=variant == "static-graph", dtype=dtype)
    return name, partial(grid.data_parallel, name, variant, dtype), settings


def kronecker(name):
    return name, partial(grid.kronecker, name), {}


def split(way, name):
    """Weights that are split over processes: curvature from closures."""
    return name, partial(way, name), dict(fresh=True, method=grid.method_of(name))


def half_precision(name):
    return name, partial(grid.sharded_in_half_precision, name), dict(fresh=True, dtype=torch.float32, halved=2)


FAST = {
    **{f"ddp plain {name}": data_parallel(name) for name in grid.DIAGONAL},
    "ddp no-sync sophia-g": data_parallel("sophia-g", "no-sync"),
    "ddp static-graph sophia-g": data_parallel("sophia-g", "static-graph"),
    "ddp bucket-view sophia-h": data_parallel("sophia-h", "bucket-view"),
    **{f"kronecker {name}": kronecker(name) for name in grid.KRONECKER},
    **{f"fsdp2 {name}": split(grid.sharded, name) for name in ("sophia-g", "sophia-h", "apollo", "adamw")},
    "hybrid sophia-g": split(grid.hybrid, "sophia-g"),
    "half precision sophia-g": half_precision("sophia-g"),
    "tensor parallel apollo-stable": split(grid.tensor_parallel, "apollo-stable"),
}
WIDE = {
    **{
        f"ddp {variant} {str(dtype)[6:]} {name}": data_parallel(name, variant, dtype)
        for variant in grid.DDP
        for dtype in (torch.float64, torch.float32)
        for name in grid.DIAGONAL
    },
    **{f"kronecker {name}": kronecker(name) for name in grid.KRONECKER},
    **{f"fsdp2 {name}": split(grid.sharded, name) for name in grid.DIAGONAL},
    **{f"tensor parallel {name}": split(grid.tensor_parallel, name) for name in grid.DIAGONAL},
}
HALF = {f"half precision {name}": half_precision(name) for name in grid.DIAGONAL.keys() - grid.HUTCHINSON}
MESHES = {
    **{f"hybrid {name}": split(grid.hybrid, name) for name in grid.DIAGONAL},
    **{f"fsdp2 and tensor {name}": split(grid.sharded_and_split, name) for name in grid.DIAGONAL},
}
TOLERANCE = 1e-5
"""Relative to the weights' norm. In float64 the largest is 3e-9, where curvature is from differences; else 1e-14."""


def bound(name, settings):
    """How far apart two runs may end: twice as far as one process in float32 is from float64, if that is more.

    AdaHessian, which divides by the root of a small curvature, ends 2e-5 from there; the others, 6e-7.
    """
    if settings.get("dtype") != torch.float32 or "halved" in settings:
        return TOLERANCE
    exact = grid.alone(name, **settings | {"dtype": torch.float64})
    rounded = grid.alone(name, **settings).double()
    return max(TOLERANCE, 2 * float((rounded - exact).norm() / exact.norm()))


def runs(cases):
    """What processes do for each case."""
    return {label: run for label, (_, run, _) in cases.items()}


def compare(found, cases):
    """Every rank's weights are the same bit for bit, and near those of one process."""
    alone, wrong = {}, {}
    for label, (name, _, settings) in cases.items():
        key = (name, *sorted(settings.items(), key=str))
        if key not in alone:
            alone[key] = grid.alone(name, **settings), bound(name, settings)
        expected, allowed = alone[key]
        weights = [rank[label] for rank in found]
        assert all(torch.equal(weights[0], other) for other in weights), label
        error = float((weights[0] - expected).norm() / expected.norm())
        if not error <= allowed:
            wrong[label] = error
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_optimizer_in_every_way_of_being_spread(ranks, tmp_path):
    cases = WIDE | {1: {}, 2: HALF, 4: MESHES}[ranks]
    compare(grid.run(runs(cases), ranks, tmp_path), cases)


ESTIMATORS = {"sophia-g": ("gauss-newton-bartlett",), "sophia-h": ("hutchinson", 2)}
SPREAD = {(way, name): partial(grid.costs, way, name) for way in ("ddp", "fsdp2") for name in ESTIMATORS}
SAID = {
    "static": "static_graph=True, which takes the first use .* pass closure=",
    "fsdp2, graph": "fully_shard .FSDP2. has split.* method='finite-difference'",
    "fsdp2, exact": 'fully_shard .FSDP2. on Net.*method="finite-difference"',
    "tensor, graph": "tensor parallelism has split.*method='finite-difference'",
    "tensor, exact": 'tensor parallelism .DTensor weights. on Linear.*method="finite-difference"',
    "fsdp2, half precision": r"bfloat16 arithmetic in .*leave MixedPrecisionPolicy\(param_dtype=\) out, .*SophiaG",
    "kronecker": "split over processes.*pass process_group=True",
    "nan": "NonFinite: the gradient of parameter .group 0, position 0",
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found; all fast tests share their start."""
    return grid.run(runs(FAST) | SPREAD | {"refused": grid.refusals}, 2, tmp_path_factory.mktemp("two"))


def test_two_processes_train_what_one_trains(two):
    compare(two, FAST)


def test_costs_are_the_models(two):
    shapes = [tuple(param.shape) for param in grid.Net().parameters()]
    for label in SPREAD:
        way, name = label
        sharded, settings = way == "fsdp2", ESTIMATORS[name]
        assert max(rank[label]["state"] for rank in two) == cost.state_bytes(shapes, 2, 2, sharded), label
        assert two[0][label]["step"] == cost.pass_bytes(shapes, 2, sharded), label
        expected = cost.refresh_bytes(shapes, 2, sharded, *settings)
        if sharded:  # what a loss of its own gathers; the counts go by all_reduce
            assert abs(two[0][label]["refresh"] - expected) <= 24, label
        else:
            assert two[0][label]["refresh"] == {"all_reduce": expected}, label


def test_refusals_name_the_way_out(two):
    for rank in two:
        for setting, pattern in SAID.items():
            assert re.search(pattern, rank["refused"][setting]), (setting, rank["refused"][setting])
        assert rank["refused"]["steps"] == 0
