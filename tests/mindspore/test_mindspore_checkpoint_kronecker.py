"""Checkpoints of K-FAC, SP-NGD and THOR between torch and MindSpore: the same bits, and the run goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from torch.nn import functional as F

import hessiod.mindspore as ours
import hessiod.torch as theirs
from hessiod import checkpoint
from hessiod.backends.checkpoint import Container
from hessiod.core import InvalidArgument

METHODS = {
    "KFAC": dict(factor_every=2, inverse_every=3, skip=["6"]),  # with a fallback
    "SPNGD": dict(damping_start=0.1, damping_steps=9, couple_momentum=True, rescale=["4"]),
    "THOR": dict(factor_every=2, block_size=7, epoch_steps=4, damping_decay=0.9),
}
BOUND = 1e-4  # of the losses, as between runs on two frameworks that are not cut


def on_torch(name, **changes):
    torch.manual_seed(1)
    front = torch.nn.Conv1d(3, 8, 3, padding=1), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Flatten()
    net = torch.nn.Sequential(*front, torch.nn.Linear(48, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 4))
    return net, getattr(theirs, name)(net, lr=0.05, damping=0.03, **METHODS[name] | changes)


def on_mindspore(name, **changes):
    conv = nn.Conv1d(3, 8, 3, pad_mode="pad", padding=1, has_bias=True)
    front = conv, nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten()
    net = nn.SequentialCell(*front, nn.Dense(48, 5), nn.LayerNorm((5,)), nn.Dense(5, 4))
    net.set_train()
    opt = getattr(ours, name)(net, learning_rate=0.05, damping=0.03, **METHODS[name] | changes)
    return net, opt, ours.TrainStep(net, nn.CrossEntropyLoss(), opt)


def batch(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(16, 3, 6, generator=generator), torch.randint(4, (16,), generator=generator)


def torch_run(net, opt, start, stop):
    losses = []
    for x, y in map(batch, range(start, stop)):
        logits = net(x)
        loss = F.cross_entropy(logits, y)
        if opt.curvature_due:
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    return np.array(losses)


def mindspore_run(step, start, stop):
    pairs = ((x.numpy(), y.numpy().astype(np.int32)) for x, y in map(batch, range(start, stop)))
    return np.array([float(step(Tensor(x), Tensor(y)).asnumpy()) for x, y in pairs])


def held(path):
    with Container(path) as file:
        return file.content, file.document["optimizer"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow][: name != "KFAC"]) for name in METHODS])
def test_a_run_moves_there_and_back(name, tmp_path):
    """Cut at step 7 on torch and at step 11 on MindSpore, in a graph that has run already."""
    net, opt = on_torch(name)
    torch_run(net, opt, 0, 7)
    checkpoint.save(tmp_path / "a", net, opt)
    expected = torch_run(net, opt, 7, 15)

    cell, other, step = on_mindspore(name)
    mindspore_run(step, 90, 92)
    checkpoint.load(tmp_path / "a", cell, other)
    checkpoint.save(tmp_path / "b", cell, other)
    assert held(tmp_path / "b") == held(tmp_path / "a")
    np.testing.assert_allclose(mindspore_run(step, 7, 11), expected[:4], rtol=BOUND)

    checkpoint.save(tmp_path / "c", cell, other)
    there = mindspore_run(step, 11, 15)
    checkpoint.load(tmp_path / "c", cell, other)
    assert mindspore_run(step, 11, 15).tolist() == there.tolist()

    back, again = on_torch(name)
    checkpoint.load(tmp_path / "c", back, again)
    checkpoint.save(tmp_path / "d", back, again)
    assert held(tmp_path / "d") == held(tmp_path / "c")
    np.testing.assert_allclose(torch_run(back, again, 11, 15), there, rtol=BOUND)
    np.testing.assert_allclose(there, expected[4:], rtol=BOUND)


def test_both_frameworks_record_the_same_before_the_first_step(tmp_path):
    for name in METHODS:
        checkpoint.save(tmp_path / "a", *on_torch(name))
        checkpoint.save(tmp_path / "b", *on_mindspore(name)[:2])
        assert held(tmp_path / "a")[1] == held(tmp_path / "b")[1]


def test_what_mindspore_does_not_cover_is_refused_and_nothing_changes(tmp_path):
    """Torch's factors of a layer that follows the fallback here."""
    net, opt = on_torch("KFAC", skip=[])
    torch_run(net, opt, 0, 2)
    checkpoint.save(tmp_path / "a", net, opt)
    cell, other, _ = on_mindspore("KFAC")
    before = [param.asnumpy().tobytes() for param in (*cell.get_parameters(), *other.get_parameters())]
    with pytest.raises(InvalidArgument, match=r"rule of '6\.weight' 'sgd-momentum', this one 'adamw'"):
        checkpoint.load(tmp_path / "a", cell, other)
    assert [param.asnumpy().tobytes() for param in (*cell.get_parameters(), *other.get_parameters())] == before
