"""Kronecker methods on MindSpore in micro-batches, clipped, with Levenberg-Marquardt damping: torch's steps."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from torch.nn import functional as F

from hessiod import torch as on_torch
from hessiod.core import InvalidArgument, NonFinite
from hessiod.mindspore import KFAC, TrainStep

OPTIONS = dict(damping=0.05, factor_every=2, inverse_every=2, adapt_every=2, fisher="empirical", skip=["2"])


def batch(number, rows=16):
    generator = np.random.default_rng(number)
    return generator.normal(size=(rows, 4)).astype(np.float32), generator.integers(3, size=rows).astype(np.int32)


def pair():
    """The same net twice: one layer is covered, one falls back."""
    ours = nn.SequentialCell(nn.Dense(4, 5), nn.Tanh(), nn.Dense(5, 3))
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    weights = [np.random.default_rng(9).normal(size=param.shape) / 2 for param in ours.trainable_params()]
    for param, other, values in zip(ours.trainable_params(), theirs.parameters(), weights, strict=True):
        param.asnumpy()[...] = values
        other.data = torch.from_numpy(param.asnumpy().copy())
    return ours, theirs


def values(net):
    return np.concatenate([param.asnumpy().ravel() for param in net.trainable_params()])


def steps_of_torch(model, opt, count):
    """Whole batches, clipped, the damping adapted by hand."""
    seen = []
    for number in range(count):
        x, y = (torch.from_numpy(array) for array in batch(number))

        def loss(x=x, y=y):
            return F.cross_entropy(model(x), y.long())

        before = loss()
        before.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        opt.step()
        opt.zero_grad()
        if opt.damping_due:
            opt.update_damping(before.detach(), loss().detach())
        seen.append(opt.damping)
    return seen


def test_micro_batches_clipping_and_adapted_damping_are_torchs():
    """Six steps: gradients are clipped in each, the damping is adapted in three, the loss of all four micro-batches."""
    ours, theirs = pair()
    expected = steps_of_torch(theirs, on_torch.KFAC(theirs, 0.1, **OPTIONS), 6)
    opt = KFAC(ours, 0.1, **OPTIONS)
    step, seen = TrainStep(ours, nn.CrossEntropyLoss(), opt, accumulation=4, clip_grad=0.1), []
    for number in range(6):
        for x, y in zip(*(np.split(array, 4) for array in batch(number)), strict=True):
            step(Tensor(x), Tensor(y))
        seen.append(opt.damping)
    assert seen == pytest.approx(expected, rel=1e-12)
    assert len(set(seen)) > 1
    found = np.concatenate([param.detach().numpy().ravel() for param in theirs.parameters()])
    assert np.linalg.norm(values(ours) - found) / np.linalg.norm(found) < 1e-5
    assert opt.steps == 6


def test_a_step_that_one_micro_batch_spoils_is_refused_whole_and_the_next_one_begins_anew():
    found = []
    for spoiled in (True, False):
        net, _ = pair()
        opt = KFAC(net, 0.1, **OPTIONS)
        step, (x, y) = TrainStep(net, nn.CrossEntropyLoss(), opt, accumulation=2), batch(0)
        before = values(net)
        if spoiled:
            bad = x.copy()
            bad[3, 1] = np.nan
            step(Tensor(bad[:8]), Tensor(y[:8]))
            with pytest.raises(NonFinite, match="layer 0: the curvature estimate holds NaN or infinity"):
                step(Tensor(x[8:]), Tensor(y[8:]))
            assert (opt.steps, opt.damping) == (0, 0.05)
            assert values(net).tobytes() == before.tobytes()
        for half in (slice(0, 8), slice(8, 16)):
            step(Tensor(x[half]), Tensor(y[half]))
        found.append(values(net))
    assert found[0].tobytes() == found[1].tobytes()
    assert found[0].tobytes() != before.tobytes()


def test_moving_statistics_see_a_batch_once_though_its_loss_is_taken_twice():
    found = []
    for adapt_every in (None, 1):
        ms.set_seed(0)
        net = nn.SequentialCell(nn.Dense(4, 5), nn.BatchNorm1d(5), nn.Dense(5, 3)).set_train()
        step = TrainStep(net, nn.CrossEntropyLoss(), KFAC(net, 0.1, fisher="empirical", adapt_every=adapt_every))
        step(*map(Tensor, batch(0)))
        found.append(np.r_[net[1].moving_mean.asnumpy(), net[1].moving_variance.asnumpy()])
    assert found[0][:5].any()  # they begin at zero
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(adapt_every=0), "adapt_every: found 0, expected a whole number of steps >= 1"),
        (dict(placement="somewhere"), "placement: found 'somewhere', expected one of owner, every, one"),
    ],
)
def test_bad_settings_are_refused_by_name(options, message):
    with pytest.raises(InvalidArgument, match=message):
        KFAC(pair()[0], **options)
