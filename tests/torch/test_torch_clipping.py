"""``clip_grad``: the norm, what it does to a step, and what it finds on the way."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.clipping import factor, total_norm
from hessiod.backends_torch.shards import groups_of
from hessiod.core.errors import InvalidArgument, NonFinite
from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, SophiaH

ROUTES = ["auto", "eager", "interpreted"]
SHAPES = ((50, 90), (3, 7), (), (0,), (17,))
LARGE = (300, 700)
ROUNDING = 300 * 700 * 2.0**-53
"""How far a sum of so many squares in float64 may be off, in whatever order it is taken."""


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    if request.param == "interpreted":
        pytest.importorskip("triton")
    monkeypatch.setenv("HESSIOD_KERNELS", request.param)
    return request.param


def made(dtype=torch.float32, size=1.0, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]
    for param in params:
        param.grad = (size * torch.randn(param.shape, generator=generator)).to(dtype)
    return params


def exact_norm(params):
    return float(np.sqrt(sum(np.square(param.grad.double().numpy()).sum() for param in params)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_the_norm_is_that_of_float64_and_does_not_depend_on_threads(dtype, size, route):
    params = made(dtype, size, (*SHAPES, LARGE))
    params.append(torch.nn.Parameter(torch.ones(2, 2)))
    params[-1].grad = torch.full((2, 2), size)
    found = total_norm([Arrays([param.grad for param in params])])
    assert found == pytest.approx(exact_norm(params), rel=ROUNDING)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        if route == "auto":
            assert total_norm([Arrays([param.grad]) for param in params]) == found
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("dtype", "entry"), [(torch.float32, 3e38), (torch.float64, 1e300), (torch.float64, 1e-170)])
def test_no_norm_overflows_and_those_of_numbers_without_a_square_are_small(dtype, entry, route):
    found = total_norm([Arrays([torch.full((4,), entry, dtype=dtype)])])
    assert found == pytest.approx(2 * entry, rel=1e-6) if entry > 1 else found < 1e-160


def step(kind, params, **more):
    opt = kind(params, lr=0.1, **more)
    if hasattr(opt, "update_curvature"):
        opt.update_curvature(loss=sum(torch.cos(param.float()).sum() for param in params))
    opt.step()
    return opt


@pytest.mark.parametrize("kind", [SGD, AdamW, SophiaH, AdaHessian, Apollo])
@pytest.mark.parametrize("bound", [1.0, 1e6])
def test_a_clipped_step_is_a_step_on_clipped_gradients(kind, bound, route):
    params, others = made(), made()
    norm = exact_norm(params)
    opt = step(kind, params, clip_grad=bound)
    assert opt.grad_norm == pytest.approx(norm, rel=ROUNDING)
    for param in others:
        param.grad *= np.float32(bound / max(bound, opt.grad_norm))
    step(kind, others)
    for param, original, other in zip(params, made(), others, strict=True):
        assert torch.equal(param.grad, original.grad), "gradients are only read"
        if kind is Apollo and route == "interpreted":
            torch.testing.assert_close(param, other, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(param, other)


def test_it_is_what_torchs_function_and_a_step_are_but_for_the_norms_rounding():
    params, theirs = made(), made()
    step(SGD, params, clip_grad=1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    step(SGD, theirs)
    for param, other in zip(params, theirs, strict=True):
        torch.testing.assert_close(param, other, rtol=2**-22, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_gradients_are_clipped_before_anything_is_rounded(dtype, monkeypatch):
    monkeypatch.setenv("HESSIOD_KERNELS", "auto")
    params = made(dtype)
    before = [(param.detach().float(), param.grad.float()) for param in params]
    opt = SGD(params, lr=1.0, clip_grad=1.0)
    opt.step()
    share = torch.tensor(factor(1.0, opt.grad_norm), dtype=torch.float32)
    for param, (old, grad) in zip(params, before, strict=True):
        assert torch.equal(param.detach(), (old - share * grad).to(dtype))


def test_the_bound_is_for_all_groups_together_and_a_loss_scale_is_divided_out_first():
    params, others = made(), made()
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.1}]
    opt = SophiaH(groups, lr=0.1, clip_grad=1.0)
    opt.update_curvature(loss=sum(torch.cos(param).sum() for param in params))
    norm = exact_norm(params)
    for param in params:
        param.grad *= 1024
    opt.grad_scale, opt.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    opt.step()
    assert opt.grad_norm == pytest.approx(norm, rel=ROUNDING)
    step(SophiaH, others, clip_grad=1.0)
    assert all(map(torch.equal, params, others))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("size", [1.0, 1e-30])
def test_what_is_not_finite_is_found_by_the_norm(bad, size, route):
    params = made(size=size)
    params[1].grad[2, 3] = bad
    before = [param.detach().clone() for param in params]
    with pytest.raises(NonFinite, match=r"position 1, shape \(3, 7\)"):
        AdamW(params, clip_grad=1.0).step()
    for more in ({}, {"capturable": True}):
        skipping = AdamW(params, clip_grad=1.0, nonfinite="skip", **more)
        skipping.step()
        assert skipping.steps == 0
    assert all(map(torch.equal, params, before))


@pytest.mark.parametrize("capturable", [False, True])
def test_where_nothing_looks_nan_spreads(capturable):
    params = made()
    params[1].grad[2, 3] = float("nan")
    opt = AdamW(params, clip_grad=1.0, nonfinite="ignore", capturable=capturable)
    opt.step()
    assert opt.steps == 1
    assert params[1][2, 3].isnan()


def test_a_capturable_step_is_clipped_on_the_device(route):
    params, others = made(), made()
    opt = step(AdamW, params, clip_grad=1.0, capturable=True, nonfinite="skip")
    step(AdamW, others, clip_grad=1.0)
    assert torch.is_tensor(opt.grad_norm)
    assert float(opt.grad_norm) == pytest.approx(exact_norm(others), rel=ROUNDING)
    assert all(map(torch.equal, params, others))


def test_bounds_that_are_none_are_refused_and_files_without_one_are_read():
    for bad in (0, -1.0, float("inf"), float("nan"), True, "1"):
        with pytest.raises(InvalidArgument, match="clip_grad: found"):
            SGD(made(), clip_grad=bad)
    opt, other = step(AdamW, made()), AdamW(made(), clip_grad=2.0)
    saved = opt.state_dict()
    for group in saved["param_groups"]:
        del group["clip_grad"], group["capturable"]
    other.load_state_dict(saved)
    assert other.param_groups[0]["clip_grad"] == 2.0


def test_squares_are_added_over_the_processes_that_hold_other_shards_and_over_no_others():
    placements = pytest.importorskip("torch.distributed.tensor.placement_types")
    strided = placements._StridedShard(0, split_factor=2)  # fully_shard after tensor parallelism
    kinds = [strided, placements.Replicate(), placements.Shard(0), placements.Partial()]
    assert groups_of((SimpleNamespace(get_group=lambda dimension: dimension), kinds)) == [0, 2]
    assert groups_of(None) == []
