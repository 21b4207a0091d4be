"""Capturable steps: nothing is asked of the device, and they give what ordinary steps give.

No GPU is needed: Triton's interpreter and single operations run what a graph would hold. Capture itself is not run.
"""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hessiod import checkpoint
from hessiod.backends_torch import triton_sweep
from hessiod.backends_torch.triton_sweep import TritonBatch
from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, DiagonalNewton, SophiaG, SophiaH

KINDS = {
    "AdamW": lambda params, **more: AdamW(params, weight_decay=0.1, **more),
    "SGD": lambda params, **more: SGD(params, momentum=0.9, dampening=0.5, **more),
    "SophiaH": lambda params, **more: SophiaH(params, every=2, **more),
    "AdaHessian": lambda params, **more: AdaHessian(params, every=2, **more),
    "DiagonalNewton": lambda params, **more: DiagonalNewton(params, every=2, **more),
    "Apollo": lambda params, **more: Apollo(params, warmup=2, **more),
}
ROUTES = ["interpreted", "eager", "auto"]
CAPTURABLE = dict(capturable=True, nonfinite="skip")


def choose(route, monkeypatch):
    """Steps by this route from now on."""
    if route == "interpreted":
        pytest.importorskip("triton")
    monkeypatch.setenv("HESSIOD_KERNELS", route)


def made(dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((50, 90), (3, 7), (), (0,))]


def take(opt, params, number, bad=None):
    """One step, on gradients that follow from its number; ``bad`` is put into one of them."""
    if getattr(opt, "curvature_due", False):
        opt.update_curvature(loss=sum(torch.cos(param.float()).sum() for param in params))
    for param in params:
        param.grad = torch.sin(param.detach() + number)
    if bad is not None:
        params[1].grad[1, 1] = bad
    opt.step()


def kept(opt, params):
    slots = [tensor.clone() for param in params for name, tensor in opt.state[param].items() if tensor.numel() > 1]
    return [param.detach().clone() for param in params] + slots


class NothingIsAsked(TorchDispatchMode):
    """Fails where a number or a truth value is read out of a tensor: on a device the host would wait for it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "the host asked the device"
        assert function is not torch.ops.aten.equal.default, "the host asked the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_the_bits_of_an_ordinary_step_with_a_learning_rate_that_changes(kind, route, dtype, monkeypatch):
    choose(route, monkeypatch)
    params, others = made(dtype), made(dtype)
    lr = torch.tensor(0.0, dtype=torch.float64)
    opt, ordinary = KINDS[kind](params, lr=lr, **CAPTURABLE), KINDS[kind](others, lr=0.0)
    for number, rate in enumerate([0.01, 0.003, 0.02, 0.01]):
        lr.fill_(rate)
        for group in ordinary.param_groups:
            group["lr"] = rate
        take(opt, params, number)
        take(ordinary, others, number)
    assert opt.steps == ordinary.steps == 4
    assert [float(opt.state[param]["step"]) for param in params] == [4.0] * 4
    for one, other in zip(kept(opt, params), [param.detach() for param in others], strict=False):
        assert torch.equal(one, other)
    for param, other in zip(params, others, strict=True):
        for slot in opt.rule_of(opt.param_groups[0]).slots:
            assert torch.equal(opt.state[param][slot], ordinary.state[other][slot]), slot


@pytest.mark.parametrize("route", ["interpreted", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_asks_the_device_nothing(kind, route, monkeypatch):
    choose(route, monkeypatch)
    params = made()
    opt = KINDS[kind](params, lr=torch.tensor(0.01), **CAPTURABLE)
    take(opt, params, 0)
    before = [param.detach().clone() for param in params]
    with NothingIsAsked():
        opt.step()
    assert not torch.equal(params[0], before[0])
    assert opt.steps == 2


def test_the_watch_for_questions_sees_those_of_an_ordinary_step():
    params = made()
    opt = AdamW(params, lr=torch.tensor(0.01))
    with pytest.raises(AssertionError, match="asked the device"), NothingIsAsked():
        take(opt, params, 0)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(kind, route, monkeypatch):
    choose(route, monkeypatch)
    params = made()
    opt = KINDS[kind](params, lr=0.01, **CAPTURABLE)
    take(opt, params, 0)
    for bad in (float("nan"), float("inf")):
        before = [param.detach().clone() for param in params] + copy.deepcopy(list(opt.state.values()))
        take(opt, params, 1, bad)
        for old, new in zip(before, [*params, *opt.state.values()], strict=True):
            pairs = [(old, new)] if torch.is_tensor(old) else [(old[name], new[name]) for name in old]
            assert all(torch.equal(one, other) for one, other in pairs)
        assert opt.steps == 1
    take(opt, params, 1)
    assert opt.steps == 2


def test_a_scaled_gradient_is_divided_and_a_scalers_infinity_skips_the_step():
    params, others = made(), made()
    opt, ordinary = (SophiaH(given, lr=0.01, **more) for given, more in ((params, CAPTURABLE), (others, {})))
    take(opt, params, 0)
    take(ordinary, others, 0)
    for found in (0.0, 1.0):
        before = [param.detach().clone() for param in params]
        for own, given in ((opt, params), (ordinary, others)):
            for param in given:
                param.grad = 1024 * torch.sin(param.detach())
            own.grad_scale, own.found_inf = torch.tensor(1024.0), torch.tensor(found)
            own.step()
        assert all(map(torch.equal, params, others))
        assert all(map(torch.equal, params, before)) == bool(found)
    assert opt.steps == ordinary.steps == 2


def test_a_first_step_without_curvature_is_refused_and_a_skipped_one_leaves_it_due():
    params = made()
    opt = AdaHessian(params, lr=0.01, every=3, **CAPTURABLE)
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(InvalidState, match="curvature is due at step 1"):
        opt.step()
    take(opt, params, 0, float("nan"))
    assert opt.curvature_due
    before = [param.detach().clone() for param in params]
    for param in params:
        param.grad = torch.ones_like(param)
    opt.step()  # there is nothing yet that AdaHessian could divide by
    assert all(map(torch.equal, params, before))
    take(opt, params, 0)
    assert opt.steps == 1


@pytest.mark.parametrize("ours", [True, False])
def test_state_goes_both_ways_between_capturable_and_ordinary(ours, tmp_path):
    model, other = (torch.nn.Linear(3, 2).double() for _ in range(2))
    options = [CAPTURABLE, {}] if ours else [{}, CAPTURABLE]
    one, two = (AdaHessian(m.parameters(), lr=0.1, every=2, **o) for m, o in zip((model, other), options, strict=True))
    for number in range(3):
        take(one, list(model.parameters()), number)
    other.load_state_dict(model.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    file = tmp_path / "run.safetensors"
    checkpoint.save(file, model, one)
    checkpoint.load(file, other, two)
    for number in range(3, 6):
        take(one, list(model.parameters()), number)
        take(two, list(other.parameters()), number)
    assert one.steps == two.steps == 6
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.is_tensor(two.state[b]["refreshes"]) != ours
        torch.testing.assert_close(a, b, rtol=1e-15, atol=0)


def test_what_a_captured_step_cannot_do_is_refused():
    params = made()
    with pytest.raises(InvalidArgument, match="nonfinite: found 'raise', expected 'skip' or 'ignore'"):
        AdamW(params, capturable=True)
    with pytest.raises(InvalidState, match="watch_updates"):
        AdamW(params, **CAPTURABLE).watch_updates()
    with pytest.raises(InvalidArgument, match="lr: found a tensor on meta"):
        SophiaG(params, lr=torch.tensor(0.1, device="meta"), **CAPTURABLE)


def test_a_capture_takes_addresses_from_memory_that_no_later_step_writes_to(monkeypatch):
    """The bookkeeping around a capture, which is only pretended."""
    choose("interpreted", monkeypatch)
    params = made()
    opt = SGD(params, lr=0.01, **CAPTURABLE)
    take(opt, params, 0)
    (batch,) = opt._plans[0, False].batches
    assert isinstance(batch, TritonBatch)
    sent = batch.sent["table"]
    monkeypatch.setattr(triton_sweep, "capturing", lambda device: True)
    with pytest.raises(InvalidState, match="take one before each"):
        take(opt, params, 1)
    batch.spare = torch.empty(len(batch.table), dtype=torch.int64)
    before = params[0].detach().clone()
    take(opt, params, 2)
    assert not torch.equal(params[0], before)
    assert batch.sent["table"] is sent
    assert batch.spare is None
    assert batch.held[0][0].tolist() == list(batch.table)
