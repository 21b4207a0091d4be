"""Sophia holds two arrays a parameter between steps, and a run of two hundred steps grows by nothing."""

import gc

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from hessiod.torch import SophiaG, SophiaH

WIDTH = 512  # the middle layer is 1 MiB in float32
ARRAY = WIDTH * WIDTH * 4


def live():
    """Bytes of every tensor that Python can reach, each storage once."""
    storages = [tensor.untyped_storage() for tensor in tensors() if tensor.layout == torch.strided]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def tensors():
    """Every tensor that the garbage collector knows; torch.compile's fake ones, which have no memory, left out."""
    found = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
    return [tensor for tensor in found if not isinstance(tensor, FakeTensor)]


def growth(resident, kind, steps, leak=lambda opt: None):
    """Growth of live tensors and of resident memory over some steps, after a warm-up, without garbage collection."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, WIDTH),
        torch.nn.Tanh(),
        torch.nn.Linear(WIDTH, WIDTH),
        torch.nn.Tanh(),
        torch.nn.Linear(WIDTH, 4),
    )
    opt = kind(model.parameters(), every=5)
    x, y = torch.randn(8, 8), torch.arange(8) % 4

    def go(count):
        for _ in range(count):
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            if opt.curvature_due:
                opt.update_curvature(loss=loss, logits=logits)
            loss.backward()
            opt.step()
            opt.zero_grad()
            leak(opt)

    go(20)
    gc.collect()
    gc.disable()  # a cycle that holds tensors shows as growth
    try:
        before = live(), resident()
        go(steps)
        return live() - before[0], resident() - before[1]
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [SophiaG, SophiaH])
def test_nothing_grows_over_two_hundred_steps_with_forty_refreshes(resident, kind):
    held, memory = growth(resident, kind, 200)
    assert held == 0
    assert memory < 16 * ARRAY  # one array lost at each refresh would be 40


def test_the_meters_see_one_array_lost_at_each_refresh(resident):
    lost = []

    def leak(opt):
        if opt.curvature_due:
            lost.append(opt.state[opt.param_groups[0]["params"][2]]["hessian"].clone())

    held, memory = growth(resident, SophiaG, 200, leak)
    assert held == 40 * ARRAY
    assert memory > 20 * ARRAY


@pytest.mark.parametrize("kind", [SophiaG, SophiaH])
def test_between_steps_there_are_two_arrays_a_parameter_and_nothing_else(kind):
    gc.collect()
    before = {id(tensor) for tensor in tensors()}
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in [(4, 6), (6, 5), (7,)]]
    opt = kind(params)

    def step():
        logits = torch.ones(3, 4) @ params[0] @ params[1] * params[2].sum()
        loss = F.cross_entropy(logits, torch.tensor([0, 1, 2]))
        if opt.curvature_due:
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        opt.step()
        opt.zero_grad()

    for _ in range(3):
        step()
    gc.collect()
    new = [tensor for tensor in tensors() if id(tensor) not in before]
    expected = [param for param in params for _ in range(3)]  # the parameter, m and h
    assert sorted(tuple(t.shape) for t in new) == sorted(tuple(t.shape) for t in expected)
    for param in params:
        slots = {name: value for name, value in opt.state[param].items() if name not in ("step", "refreshes")}
        assert set(slots) == {"exp_avg", "hessian"}
        assert (opt.state[param]["step"], opt.state[param]["refreshes"]) == (3, 1)
        for slot in slots.values():
            assert (slot.shape, slot.dtype, slot.requires_grad) == (param.shape, param.dtype, False)
            assert slot.untyped_storage().nbytes() == param.numel() * 4
