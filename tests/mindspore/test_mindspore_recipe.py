"""SP-NGD's whole recipe, as docs/kronecker.md writes it down, with a layer that falls back, on both frameworks."""

import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from torch.nn import functional as F

from hessiod import mindspore as on_mindspore
from hessiod import torch as on_torch
from hessiod.core.kronecker.recipes import polynomial_lr

STEPS, EPOCH = 12, 4
RATES = [polynomial_lr(step / EPOCH, lr=0.05, start=1.0, end=3.5, power=2.0) for step in range(STEPS)]
RECIPE = dict(damping=1e-2, couple_momentum=True, damping_start=0.1, damping_steps=4, rescale=["*"], skip=["3"])
FALLBACK = 0.05


def weights_and_batches():
    generator = np.random.default_rng(0)
    weights = [
        0.5 * generator.normal(size=shape).astype(np.float32) for shape in ((5, 4), (5,), (3, 5), (3,), (3, 3), (3,))
    ]
    inputs = generator.normal(size=(STEPS, 8, 4)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[generator.integers(3, size=(STEPS, 8))]
    return weights, list(zip(inputs, targets, strict=True))


def run_on_torch(weights, batches):
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3), torch.nn.Linear(3, 3))
    for param, value in zip(model.parameters(), weights, strict=True):
        param.data = torch.from_numpy(value.copy())
    opt = on_torch.SPNGD(model, lr=RATES[0], fallback_lr=FALLBACK, **RECIPE)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: RATES[min(step, STEPS - 1)] / RATES[0])
    mix, losses = on_torch.RunningMixup(0.4, seed=3), []
    for batch in batches:
        x, y = mix(*map(torch.from_numpy, batch))
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        opt.zero_grad()
        scheduler.step()
        losses.append(loss.item())
    return losses, [param.detach().numpy() for param in model.parameters()]


def run_on_mindspore(weights, batches):
    net = nn.SequentialCell(nn.Dense(4, 5), nn.Tanh(), nn.Dense(5, 3), nn.Dense(3, 3))
    for param, value in zip(net.trainable_params(), weights, strict=True):
        param.asnumpy()[...] = value
    opt = on_mindspore.SPNGD(net, RATES, fallback_lr=[FALLBACK * rate / RATES[0] for rate in RATES], **RECIPE)
    step, mix = on_mindspore.TrainStep(net, nn.CrossEntropyLoss(), opt), on_mindspore.RunningMixup(0.4, seed=3)
    losses = [float(step(*mix(*map(Tensor, batch))).asnumpy()) for batch in batches]
    return losses, [param.asnumpy() for param in net.trainable_params()]


def test_the_whole_recipe_of_sp_ngd_is_one_run_on_both_frameworks():
    weights, batches = weights_and_batches()
    losses, ours = run_on_torch(weights, batches)
    others, theirs = run_on_mindspore(weights, batches)
    assert others == pytest.approx(losses, rel=1e-5)
    for one, other, start in zip(ours, theirs, weights, strict=True):
        assert np.linalg.norm(one - other) / np.linalg.norm(one) < 1e-5
        assert np.linalg.norm(one - start) / np.linalg.norm(start) > 0.1
