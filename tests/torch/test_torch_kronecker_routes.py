"""Compiled matrix products and torch's own give the same steps; tensors that the compiled ones cannot take go on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hessiod.backends import kernels
from hessiod.core import InvalidState, NonFinite
from hessiod.torch import KFAC, THOR

F64 = torch.float64


class Net(nn.Module):
    """Layers that go together (five: a convolution, four projections), and three that do not."""

    def __init__(self):
        super().__init__()
        self.convolve, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 2, stride=2, groups=2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        x = self.grouped(self.norm(self.convolve(x))).flatten(2).mT
        return self.attention(x, x, x)[0].mean(1)


def trained(monkeypatch, route, make, change=lambda model: model):
    monkeypatch.setenv("HESSIOD_KERNELS", route)
    torch.manual_seed(0)
    model = change(Net().to(F64))
    opt = make(model)
    for _ in range(8):
        logits = model(torch.randn(8, 3, 4, 4, dtype=F64))
        loss = F.cross_entropy(logits, torch.randint(4, (8,)))
        if opt.curvature_due:
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        opt.step()
        opt.zero_grad()
    return torch.cat([param.detach().reshape(-1) for param in model.parameters()])


KINDS = {
    "kfac": lambda model: KFAC(model, factor_every=2, inverse_every=4),
    "thor": lambda model: THOR(model, factor_every=2, block_size=3),
}


@pytest.fixture
def calls(monkeypatch):
    """How many layers each call of the compiled natural gradients took."""
    found, real = [], kernels.natural_gradients

    def counting(layers, *rest):
        found.append(len(layers) // 9)
        return real(layers, *rest)

    monkeypatch.setattr(kernels, "natural_gradients", counting)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_both_routes_give_the_same_steps(kind, monkeypatch, calls):
    fast, plain = (trained(monkeypatch, route, KINDS[kind]) for route in ("compiled", "eager"))
    assert calls == [5] * 8
    assert torch.linalg.norm(fast - plain) < 1e-10 * torch.linalg.norm(plain)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen bias", "channels last"])
def test_a_bias_that_is_frozen_later_and_gradients_by_channels(frozen, monkeypatch, calls):
    def change(model):
        if not frozen:
            return model.to(memory_format=torch.channels_last)
        return model

    def make(model):
        opt = KINDS["kfac"](model)
        model.convolve.bias.requires_grad_(not frozen)
        return opt

    found, plain = (trained(monkeypatch, route, make, change) for route in ("compiled", "eager"))
    assert calls == ([5] * 8 if frozen else [])
    assert torch.linalg.norm(found - plain) < 1e-10 * torch.linalg.norm(plain)


def test_a_model_that_was_cast_after_steps_is_refused_by_name(calls):
    model, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3)
    opt = KFAC(model, fisher="empirical")
    for wide in (False, True):
        if wide:
            model.double()
        before = model[0].weight.detach().clone()
        opt.zero_grad()
        model(x.to(model[0].weight.dtype)).square().mean().backward()
        if wide:
            with pytest.raises(
                InvalidState, match=r"layer 0: found a gradient in torch.float64 .* build a new optimizer"
            ):
                opt.step()
            assert torch.equal(model[0].weight, before)
        else:
            opt.step()
    assert calls == [1]


@pytest.mark.slow
def test_a_compiled_model_is_traced_without_a_word(recwarn):
    """The hooks of a compiled model are traced too; a call of compiled code there would break its graph."""
    model, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3)
    opt = KFAC(model, fisher="empirical")
    torch.compile(model, backend="eager")(x).square().mean().backward()
    opt.step()
    assert not [str(one.message) for one in recwarn if "Dynamo" in str(one.message)]


def test_a_factor_without_an_inverse_is_refused_by_name_on_both_routes(monkeypatch):
    for route in ("compiled", "eager"):
        monkeypatch.setenv("HESSIOD_KERNELS", route)
        model = nn.Sequential(nn.Linear(3, 2, bias=False))
        opt = KFAC(model, fisher="empirical", factor_every=1, inverse_every=1)
        model(torch.randn(4, 3)).square().mean().backward()
        opt.step()
        opt.state[model[0].weight]["factor_a"] = torch.diag(torch.tensor([1.0, 1.0, -1e30]))
        model.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        with pytest.raises(NonFinite, match="layer 0: its factors have no inverse"):
            opt.step()
