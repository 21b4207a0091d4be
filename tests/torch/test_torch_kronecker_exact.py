"""One step of every kind of layer against dense float64 solutions, built from per-example gradients alone.

Nothing here unfolds patches or counts tokens: the input vector of one use of a weight is the derivative of one output
entry with respect to one row of the weight, and its output gradient is the derivative of the summed losses.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hessiod.torch import KFAC

F64 = torch.float64
DAMPING = 0.3
CLASSES = 3

WEIGHTS = {
    "linear, leading axes": (lambda: nn.Linear(3, 2), (4, 5, 3)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1), (4, 2, 6)),
    "conv1d, padding same, dilated": (lambda: nn.Conv1d(2, 3, 2, padding="same", dilation=2), (4, 2, 6)),
    "conv2d, strided, dilated": (lambda: nn.Conv2d(2, 3, 2, stride=2, dilation=(1, 2), bias=False), (3, 2, 6, 5)),
    "conv2d, padding same, reflected": (
        lambda: nn.Conv2d(1, 2, (2, 3), padding="same", padding_mode="reflect"),
        (3, 1, 4, 4),
    ),
    "conv2d, groups": (lambda: nn.Conv2d(4, 6, 2, groups=2), (3, 4, 3, 3)),
    "conv2d, depthwise": (lambda: nn.Conv2d(3, 3, 2, groups=3, padding=1, dilation=2), (3, 3, 3, 3)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2, stride=(1, 2, 1)), (3, 1, 3, 4, 2)),
    "embedding": (lambda: nn.Embedding(6, 3), (4, 5)),
    "embedding, padding": (lambda: nn.Embedding(6, 3, padding_idx=0), (4, 5)),
}
NORMS = {
    "batch norm in eval": (lambda: nn.BatchNorm2d(3), (5, 3, 2, 2)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (5, 4, 3)),
    "layer norm": (lambda: nn.LayerNorm(4), (5, 3, 4)),
    "rms norm": (lambda: nn.RMSNorm(4), (5, 3, 4)),
}


class Case:
    """A layer under a smooth head that stays as it is, one K-FAC step, and what is needed to work it out otherwise."""

    def __init__(self, make, shape):
        torch.manual_seed(0)
        self.layer = make().double().eval()
        for param in self.layer.parameters():
            nn.init.normal_(param)
        for buffer in self.layer.buffers():
            if buffer.dim():
                buffer.uniform_(0.5, 2.0)  # a BatchNorm's statistics
        embedding = isinstance(self.layer, nn.Embedding)
        self.x = torch.randint(6, shape) if embedding else torch.randn(shape, dtype=F64)
        self.targets = torch.randint(CLASSES, shape[:1])
        out = self.layer(self.x)
        self.head = torch.randn(CLASSES, out[0].numel(), dtype=F64)
        self.params = list(self.layer.parameters())
        self.loss(out).backward()
        self.grads = [param.grad for param in self.params]

    def loss(self, out, reduction="mean"):
        """Cross-entropy behind tanh and the head."""
        return F.cross_entropy(torch.tanh(out).flatten(1) @ self.head.T, self.targets, reduction=reduction)

    def moved(self):
        """What a step with learning rate 1 takes away from the parameters."""

        class Model(nn.Module):
            def __init__(model):
                super().__init__()
                model.layer = self.layer

            def forward(model, x):
                return torch.tanh(model.layer(x)).flatten(1) @ self.head.T

        model = Model().eval()
        opt = KFAC(model, lr=1.0, momentum=0.0, damping=DAMPING, kl_clip=None, fisher="empirical")
        before = [param.detach().clone() for param in self.params]
        self.layer.zero_grad()
        F.cross_entropy(model(self.x), self.targets).backward()
        opt.step()
        return [old - param.detach() for old, param in zip(before, self.params, strict=True)]


def close(found, expected):
    """Within 1e-10 of the norm: both are float64."""
    assert (found - expected).norm() < 1e-10 * expected.norm()


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_step_solves_the_true_kronecker_matrix(name):
    case = Case(*WEIGHTS[name])
    groups = getattr(case.layer, "groups", 1)
    expected = [natural_gradient(case, *uses_of(case, group, groups)) for group in range(groups)]
    moved = case.moved()
    for group in range(groups):
        close(matrix(case, moved, group, groups), expected[group])


def natural_gradient(case, inputs, gradients, grad):
    """The damped Kronecker matrix itself, solved for the gradient; columns of a matrix one under another."""
    a = inputs.T @ inputs / len(inputs)
    g = gradients.T @ gradients / len(case.targets)
    pi = ((a.trace() / len(a)) / (g.trace() / len(g))).sqrt()
    a = a + pi * DAMPING**0.5 * torch.eye(len(a), dtype=F64)
    g = g + DAMPING**0.5 / pi * torch.eye(len(g), dtype=F64)
    return torch.linalg.solve(torch.kron(a, g), grad.T.reshape(-1)).reshape(grad.T.shape).T


def uses_of(case, group, groups):
    """Inputs and output gradients of each use of a group's weights, and the weights' gradient as a matrix."""
    out = case.layer(case.x)
    (pulled,) = torch.autograd.grad(case.loss(out, "sum"), out, retain_graph=True)
    last = isinstance(case.layer, nn.Linear | nn.Embedding)
    flat, pulled = (tensor if last else tensor.movedim(1, -1) for tensor in (out, pulled))
    flat, pulled = flat.reshape(-1, flat.shape[-1]), pulled.reshape(-1, pulled.shape[-1])
    size = flat.shape[1] // groups
    inputs = torch.stack([input_of(case, entry, group * size) for entry in flat[:, group * size]])
    used = inputs.any(1)  # an embedding's padding has no derivative
    return inputs[used], pulled[used, group * size : (group + 1) * size], matrix(case, case.grads, group, groups)


def input_of(case, entry, row):
    """The derivative of an output entry with respect to the weights that it is a product with, and to its bias."""
    parts = torch.autograd.grad(entry, case.params, retain_graph=True)
    if isinstance(case.layer, nn.Embedding):
        return parts[0][:, 0]
    return torch.cat([part[row].reshape(-1) for part in parts])


def matrix(case, tensors, group, groups):
    """A group's weights as a matrix, with the bias as the last column."""
    if isinstance(case.layer, nn.Embedding):
        return tensors[0].T
    size = len(tensors[0]) // groups
    return torch.cat([tensor[group * size : (group + 1) * size].reshape(size, -1) for tensor in tensors], 1)


@pytest.mark.parametrize("name", NORMS)
def test_a_step_solves_the_blocks_of_scale_and_shift(name):
    case = Case(*NORMS[name])
    examples = []
    for n in range(len(case.targets)):
        losses = case.loss(case.layer(case.x), "none")
        examples.append(torch.stack(torch.autograd.grad(losses[n], case.params)))  # [scale and shift, channels]
    examples = torch.stack(examples)
    moved = torch.stack(case.moved())
    for channel in range(moved.shape[1]):
        rows = examples[:, :, channel]
        block = rows.T @ rows / len(rows) + DAMPING * torch.eye(rows.shape[1], dtype=F64)
        close(moved[:, channel], torch.linalg.solve(block, torch.stack(case.grads)[:, channel]))
