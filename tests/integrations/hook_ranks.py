"""CurvatureHook on DistributedDataParallel, as a process of test_trainer_processes.py runs it, and a loop by hand."""

from contextlib import nullcontext

import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from hessiod.torch import CurvatureHook, SophiaG, SophiaH

MAKE = {
    "sophia-g": lambda params: SophiaG(params, lr=1e-2, every=2),
    "sophia-h": lambda params: SophiaH(params, lr=1e-2, every=2),
}
OPTIONS = {"plain": {}, "view": {"gradient_as_bucket_view": True}}
CASES = [(name, option) for name in MAKE for option in OPTIONS]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))

    def forward(self, x, y):
        logits = self.body(x)
        return {"loss": F.cross_entropy(logits, y), "logits": logits}


def batch(step, part, rank):
    generator = torch.Generator().manual_seed(100 * step + 10 * part + rank)
    return torch.randn(8, 5, generator=generator), torch.randint(3, (8,), generator=generator)


def train(name, option, rank, by_hand):
    """Four steps of two micro-batches, the first of them without synchronisation."""
    model = Net()
    replicated, opt = DistributedDataParallel(model, **OPTIONS[option]), MAKE[name](model.parameters())
    with nullcontext() if by_hand else CurvatureHook(replicated, opt):
        for step in range(4):
            for part in range(2):
                x, y = batch(step, part, rank)
                with replicated.no_sync() if part == 0 else nullcontext():
                    due = by_hand and opt.curvature_due
                    if due and name == "sophia-h":
                        opt.update_curvature(closure=lambda x=x, y=y: replicated(x, y)["loss"])
                    output = replicated(x, y)
                    if due and name == "sophia-g":
                        opt.update_curvature(loss=output["loss"], logits=output["logits"])
                    (output["loss"] / 2).backward()
            opt.step()
            opt.zero_grad()
    state = [opt.state[param]["hessian"] for param in model.parameters()]
    return torch.cat([tensor.detach().flatten() for tensor in [*model.parameters(), *state]])


def both_ways(name, option, rank, ranks):
    """What a run with the hook ends with, and a run by hand."""
    return train(name, option, rank, by_hand=False), train(name, option, rank, by_hand=True)
