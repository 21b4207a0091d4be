"""Checkpoints of K-FAC, SP-NGD and THOR on torch: the run goes on bit for bit, and bad files change nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hessiod import checkpoint
from hessiod.backends.checkpoint import Container
from hessiod.backends.checkpoint.arrays import as_array
from hessiod.backends.checkpoint.container import write_container
from hessiod.core import InvalidArgument, InvalidState
from hessiod.torch import KFAC, SPNGD, THOR

METHODS = {
    "kfac": (KFAC, dict(factor_every=2, inverse_every=3, skip=["back.2"])),  # with a fallback
    "spngd": (SPNGD, dict(damping_start=0.1, damping_steps=9, couple_momentum=True)),
    "thor": (THOR, dict(factor_every=2, block_size=7, epoch_steps=4, damping_decay=0.9)),
}


class Net(nn.Module):
    """A convolution, its norm, attention with packed projections, a layer norm and linear layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.front = nn.Sequential(nn.Conv1d(3, 8, 3, padding=1, groups=1), nn.BatchNorm1d(8), nn.ReLU())
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.back = nn.Sequential(nn.Linear(48, 5), nn.LayerNorm(5), nn.Linear(5, 4))

    def forward(self, x):
        x = self.front(x).transpose(1, 2)
        return self.back(self.attention(x, x, x, need_weights=False)[0].flatten(1))


def made(name, **changes):
    kind, options = METHODS[name]
    net = Net()
    return net, kind(net, **(dict(lr=0.05, damping=0.03) | options | changes))


def step(net, opt, number):
    generator = torch.Generator().manual_seed(number)
    x, y = torch.randn(16, 3, 6, generator=generator), torch.randint(4, (16,), generator=generator)
    logits = net(x)
    loss = F.cross_entropy(logits, y)
    if opt.curvature_due:
        opt.update_curvature(loss=loss, logits=logits)
    loss.backward()
    opt.step()
    opt.zero_grad()
    return loss.item()


def run(net, opt, start, stop):
    return [step(net, opt, number) for number in range(start, stop)]


@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_on_bit_for_bit_in_an_optimizer_that_has_run(name, tmp_path):
    """Seven steps are between two refreshes; the other optimizer's own factors and counters are forgotten."""
    net, opt = made(name)
    run(net, opt, 0, 7)
    checkpoint.save(tmp_path / "a", net, opt)
    expected = run(net, opt, 7, 15)
    other, again = made(name)
    run(other, again, 50, 54)
    checkpoint.load(tmp_path / "a", other, again)
    checkpoint.save(tmp_path / "b", other, again)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert run(other, again, 7, 15) == expected
    for one, two in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_file_of_before_the_first_step_empties_the_layers(tmp_path):
    net, opt = made("kfac")
    checkpoint.save(tmp_path / "a", net, opt)
    expected = run(net, opt, 0, 3)
    run(net, opt, 3, 5)
    checkpoint.load(tmp_path / "a", net, opt)
    assert not opt.state
    assert run(net, opt, 0, 3) == expected


@pytest.fixture
def saved(tmp_path):
    net, opt = made("kfac")
    run(net, opt, 0, 3)
    checkpoint.save(tmp_path / "a", net, opt)
    return tmp_path / "a"


def contents(net, opt):
    states = (net.state_dict(), *(opt.state[p] for p in net.parameters() if p in opt.state))
    return [(key, copy.deepcopy(value)) for state in states for key, value in state.items()], opt.damping


def rewritten(path, change):
    with Container(path) as file:
        document = copy.deepcopy(file.document)
        arrays = {name: file.read(name).copy() for name in file.entries}
    change(document, arrays)
    write_container(path, [as_array(name, values) for name, values in arrays.items()], document)


def lacking(document, arrays):
    del arrays["optimizer/back.0.weight/inverse_g.0"]


def misshapen(document, arrays):
    arrays["optimizer/back.0.weight/factor_g"] = np.eye(6, dtype=np.float32)


def foreign(document, arrays):
    arrays["optimizer/back.0.weight/factor_z"] = np.eye(6, dtype=np.float32)


def frozen(document, arrays):
    document["optimizer"]["kronecker"]["layers"]["back.0.weight"]["counters"] = {"refreshes": "many"}


def unlisted(document, arrays):
    document["optimizer"]["kronecker"]["layers"]["back.0.weight"]["arrays"].remove("inverse_g.0")
    lacking(document, arrays)


def negative(document, arrays):
    document["optimizer"]["kronecker"]["layers"]["back.0.weight"]["counters"]["refreshes"] = -1


def undamped(document, arrays):
    document["optimizer"]["kronecker"]["damping"] = 0.0


def bare(document, arrays):
    del document["optimizer"]["kronecker"]["layers"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacking, r"back\.0\.weight/inverse_g\.0: it is not in the file"),
        (misshapen, r"back\.0\.weight/factor_g: the file has the shape \[6, 6\], expected \[5, 5\]"),
        (foreign, r"back\.0\.weight/factor_z: it is only in the file"),
        (unlisted, r"record of the layer 'back\.0\.weight' lacks inverse_g\.0"),
        (negative, "record of the layers is not of this format"),
        (frozen, "record of the layers is not of this format"),
        (undamped, "record of the layers is not of this format"),
        (bare, "record of the layers is not of this format"),
    ],
)
def test_a_bad_file_is_refused_whole(change, message, saved):
    rewritten(saved, change)
    net, opt = made("kfac")
    run(net, opt, 0, 2)
    before = contents(net, opt)
    with pytest.raises(InvalidArgument, match=message):
        checkpoint.load(saved, net, opt)
    after = contents(net, opt)
    assert after[1] == before[1]
    for (name, value), (again, other) in zip(after[0], before[0], strict=True):
        assert name == again
        torch.testing.assert_close(value, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("thor", {}, "it is KFAC, this one THOR"),
        ("kfac", dict(factor_every=3), "factor_every 2, this one 3"),
        ("kfac", dict(fisher="empirical"), "fisher 'monte-carlo', this one 'empirical'"),
        ("kfac", dict(block_size=4), "block_size None, this one 4"),
        ("kfac", dict(adapt_every=5), "adapt_every None, this one 5"),
        ("kfac", dict(momentum=0.5), r"momentum.* 0\.9, this one 0\.5"),
        ("kfac", dict(skip=["back.2", "back.0"]), "rule"),
    ],
)
def test_another_method_or_setting_is_refused_by_name(name, changes, message, saved):
    with pytest.raises(InvalidArgument, match=message):
        checkpoint.load(saved, *made(name, **changes))


def test_another_rescaling_of_weights_is_refused(tmp_path):
    net, opt = made("spngd", rescale=["back.*"])
    checkpoint.save(tmp_path / "a", net, opt)
    with pytest.raises(InvalidArgument, match=r"rescale \['back\.\*'\], this one None"):
        checkpoint.load(tmp_path / "a", *made("spngd"))


def test_gathered_statistics_are_not_lost(tmp_path):
    net, opt = made("kfac")
    logits = net(torch.ones(2, 3, 6))
    opt.update_curvature(loss=logits.sum(), logits=logits)
    with pytest.raises(InvalidState, match="their step is yet to come"):
        checkpoint.save(tmp_path / "a", net, opt)
    assert not list(tmp_path.iterdir())


def test_a_schedule_of_damping_that_goes_elsewhere_is_refused(tmp_path):
    for name, other in (("thor", 0.3), ("spngd", 0.003)):
        net, opt = made(name)
        run(net, opt, 0, 2)
        checkpoint.save(tmp_path / "a", net, opt)
        with pytest.raises(InvalidArgument, match=f"damping 0.03, this one {other}"):
            checkpoint.load(tmp_path / "a", *made(name, damping=other))


def test_a_prediction_that_waits_for_update_damping_is_not_lost(tmp_path):
    net, opt = made("kfac", adapt_every=1)
    run(net, opt, 0, 1)
    with pytest.raises(InvalidState, match="update_damping is due"):
        checkpoint.save(tmp_path / "a", net, opt)
    opt.update_damping(1.0, 0.9)
    checkpoint.save(tmp_path / "a", net, opt)
