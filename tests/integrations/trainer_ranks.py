"""What a process does in test_trainer_processes.py: trainers on a part of each batch, or alone on the whole batch.

Nets are in float64, in which a sum over processes differs from one process's sum by 1e-16.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial

import test_accelerate
import test_lightning
import test_transformers
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, DistributedSampler

from hessiod.torch import KFAC, SPNGD, THOR, AdaHessian, DiagonalNewton, SophiaG, SophiaH

ROWS = 8
"""Of a process's batch; a process that trains alone has twice as many."""

KRONECKER = dict(lr=1e-2, damping=0.1)
MAKE = {
    "sophia-g": lambda model: SophiaG(model.parameters(), lr=1e-2, every=3),
    "sophia-h": lambda model: SophiaH(model.parameters(), lr=1e-2, every=3),
    "adahessian": lambda model: AdaHessian(model.parameters(), lr=1e-2, every=3),
    "diagonal-newton": lambda model: DiagonalNewton(model.parameters(), lr=1e-2, damping=0.1, every=3),
    "kfac": lambda model: KFAC(model, **KRONECKER, factor_every=3, inverse_every=3, **together()),
    "kfac-empirical": lambda model: KFAC(model, **KRONECKER, factor_every=3, fisher="empirical", **together()),
    "spngd": lambda model: SPNGD(model, **KRONECKER, **together()),
    "thor": lambda model: THOR(model, **KRONECKER, factor_every=3, **together()),
}


def together():
    """The setting of Kronecker methods on several processes, under DistributedDataParallel too."""
    return dict(process_group=True) if dist.is_initialized() else {}


def found(model, opt):
    """Weights, and the curvature where it is a tensor like them."""
    params = [param for param in model.parameters() if param in opt.state]
    curvature = [opt.state[param]["hessian"] for param in params if "hessian" in opt.state[param]]
    return torch.cat([tensor.detach().flatten() for tensor in [*model.parameters(), *curvature]])


def huggingface(name, ranks):
    """GPT-2 on rows padded to different lengths, two micro-batches a step."""
    settings = dict(per_device_train_batch_size=2 * ROWS // ranks, gradient_accumulation_steps=2)
    if ranks > 1:
        settings |= dict(ddp_backend="gloo")
    with tempfile.TemporaryDirectory() as folder:
        trainer, model, opt = test_transformers.build(
            folder, lambda model: MAKE[name](without_places(model)), **settings
        )
        trainer.train()
    assert type(trainer.model_wrapped).__name__ == (type(model).__name__ if ranks == 1 else "DistributedDataParallel")
    return found(model, opt)


def without_places(model):
    """Looked up once for all rows, positions have a factor of gradients that are sums over a process's rows."""
    model.transformer.wpe.weight.requires_grad_(False)
    return model.double()


def accelerate(name, ranks, **options):
    """Batches in turn: each process's are one after another in the batch of one process."""
    handlers = [DistributedDataParallelKwargs(**options)] if options else []
    run = partial(test_accelerate.run, rows=2 * ROWS // ranks, parts=1 if options.get("static_graph") else 2)
    model, opt, *_ = run(lambda model: MAKE[name](model.double()), steps=3, handlers=handlers)
    return found(model, opt)


def lightning(name, ranks):
    """Rows are dealt out to the processes one by one; a process that trains alone has them in that order."""
    data = test_lightning.data()
    if ranks == 1:
        batches = DataLoader(data, 2 * ROWS, sampler=torch.arange(len(data)).view(-1, ROWS, 2).mT.flatten().tolist())
        settings = {}
    else:
        batches = DataLoader(data, ROWS, sampler=DistributedSampler(data, shuffle=False))
        strategy = DDPStrategy(process_group_backend="gloo")
        settings = dict(strategy=strategy, devices=ranks, use_distributed_sampler=False)
    net, opt, _ = test_lightning.fit(None, MAKE[name], batches=batches, precision=64, **settings)
    return found(net, opt)


RUNS = {"huggingface": huggingface, "accelerate": accelerate, "lightning": lightning}


def run(trainer, name, options, rank=0, ranks=1):
    """A process's run, in the environment in which trainers look for others; they are connected already."""
    if ranks > 1:
        place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=ranks, LOCAL_WORLD_SIZE=ranks, MASTER_PORT=0)
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="tests")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        return RUNS[trainer](name, ranks, **options)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
