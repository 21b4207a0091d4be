"""Factors of every kind of layer on MindSpore, against PyTorch's in float64, which are held against dense solutions."""

import mindspore as ms
import numpy as np
import torch
from mindspore import Tensor, nn
from torch.nn import functional as F

from hessiod import torch as on_torch
from hessiod.mindspore import KFAC, TrainStep


def bent(x):
    """Smooth, and exact to a rounding or two: MindSpore's float32 tanh on the CPU is off by up to 1e-4."""
    return x / (1.0 + x * x)


class Ours(nn.Cell):
    """Every kind once: what is padded, dilated, strided and grouped differs."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.one = nn.Conv1d(4, 4, 3, pad_mode="pad", padding=2, dilation=2, has_bias=True)
        self.two = nn.Conv2d(2, 4, (3, 2), pad_mode="same", dilation=2, group=2)
        self.norm = nn.BatchNorm2d(4)
        self.three = nn.Conv3d(
            2, 3, (2, 3, 2), stride=(1, 2, 1), pad_mode="pad", padding=(1, 0, 1, 1, 0, 0), has_bias=True
        )
        self.head = nn.Dense(36, 3)

    def construct(self, ids):
        x = bent(self.one(self.table(ids).swapaxes(1, 2)))
        x = bent(self.norm(self.two(x.reshape((-1, 2, 4, 4)))))
        return self.head(bent(self.three(x.reshape((-1, 2, 2, 4, 4)))).reshape((-1, 36)))


class Theirs(torch.nn.Module):
    """The same."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(7, 4)
        self.one = torch.nn.Conv1d(4, 4, 3, padding=2, dilation=2)
        self.two = torch.nn.Conv2d(2, 4, (3, 2), padding="same", dilation=2, groups=2, bias=False)
        self.norm = torch.nn.BatchNorm2d(4)
        self.three = torch.nn.Conv3d(2, 3, (2, 3, 2), stride=(1, 2, 1))
        self.head = torch.nn.Linear(36, 3)

    def forward(self, ids):
        x = bent(self.one(self.table(ids).mT))
        x = bent(self.norm(self.two(x.reshape(-1, 2, 4, 4)))).reshape(-1, 2, 2, 4, 4)
        return self.head(bent(self.three(F.pad(x, (0, 0, 1, 1, 1, 0)))).reshape(-1, 36))


NAMES = {"embedding_table": "weight", "gamma": "weight", "beta": "bias"}
BUFFERS = {"moving_mean": "running_mean", "moving_variance": "running_var"}


def pair():
    """The same weights and moving statistics; BatchNorm's are not of the batch."""
    generator, ours, theirs = np.random.default_rng(0), Ours().set_train(False), Theirs().double().eval()
    known = dict(theirs.named_parameters()) | dict(theirs.named_buffers())
    for name, param in ours.parameters_and_names():
        head, _, last = name.rpartition(".")
        param.asnumpy()[...] = (
            np.abs(generator.normal(size=param.shape)) if last in BUFFERS else generator.normal(size=param.shape)
        )
        other = known[f"{head}.{(NAMES | BUFFERS).get(last, last)}"]
        other.data = torch.from_numpy(param.asnumpy().astype(np.float64)).reshape(other.shape)
    return ours, theirs


def test_factors_of_every_kind_of_layer_are_torchs_in_float64():
    """Embedding; convolutions of one to three axes with padding of all kinds; BatchNorm that does not train; Dense."""
    ours, theirs = pair()
    generator = np.random.default_rng(1)
    ids, y = generator.integers(7, size=(5, 8)), generator.integers(3, size=5)
    opt, other = KFAC(ours, 0.0, fisher="empirical"), on_torch.KFAC(theirs, 0.0, fisher="empirical")
    TrainStep(ours, nn.CrossEntropyLoss(), opt)(Tensor(ids.astype(np.int32)), Tensor(y.astype(np.int32)))
    F.cross_entropy(theirs(torch.from_numpy(ids)), torch.from_numpy(y)).backward()
    other.step()
    assert [layer.name for layer in opt.layers] == ["table", "one", "two", "norm", "three", "head"]
    expected = {layer.name: other.state[layer.params[0]] for layer in other.layers}
    for layer in opt.layers:
        for name, param in opt.states[layer].arrays.items():
            found, reference = param.asnumpy(), expected[layer.name][name].numpy()
            distance = np.linalg.norm(found - reference) / np.linalg.norm(reference)
            assert distance < 5e-6, (layer.name, name, distance)


class Attends(nn.Cell):
    """Attention with a residual."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Dense(4, 3)

    def construct(self, x):
        found, _ = self.attention(x, x, x)
        return self.head((x + found).mean(1))


def test_attention_follows_the_fallback_and_says_why():
    ms.set_seed(0)
    net, generator = Attends(), np.random.default_rng(0)
    opt = KFAC(net, 0.1, fisher="empirical")
    plan = {row.parameter: row for row in opt.plan()}
    reason = "attention multiplies by its weights in a function, and not in a Cell; attention built of Dense is covered"
    for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"):
        assert plan[f"attention.{name}"].treatment == "adamw"
        assert plan[f"attention.{name}"].detail == reason
    assert plan["head.weight"].treatment == "KFAC"
    x = Tensor(generator.normal(size=(6, 5, 4)).astype(np.float32))
    y = Tensor(generator.integers(3, size=6).astype(np.int32))
    before = [param.asnumpy().copy() for param in net.trainable_params()]
    step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    losses = [float(step(x, y).asnumpy()) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert all((param.asnumpy() != old).any() for param, old in zip(net.trainable_params(), before, strict=True))
