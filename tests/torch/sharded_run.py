"""Runs under FSDP2 on gloo, saved and resumed by torch.distributed.checkpoint: sharded_run.py FOLDER OPTIMIZER.

Two processes save; two, four and one go on. Each run writes its losses and weights as JSON. The processes are forks of
this one, which imports torch once.
"""

import json
import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hessiod.torch import AdamW, SophiaG

OPTIMIZERS = {
    "sophia-g": lambda params: SophiaG(params, lr=0.05, every=10),  # curvature before the cut: ranks draw own targets
    "adamw": lambda params: AdamW(params, lr=0.05),
}


def network(world):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))  # 5 rows: uneven shards
    mesh = init_device_mesh("cpu", (world,))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    return model


def step(model, optimizer, inputs, targets):
    def closure():
        logits = model(inputs)
        return torch.nn.functional.cross_entropy(logits, targets), logits

    if getattr(optimizer, "curvature_due", False):
        optimizer.update_curvature(closure=closure)
    loss = closure()[0]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def run(rank, world, folder, name, saving):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting-{world}-{saving}", rank=rank, world_size=world
    )
    model = network(world)
    optimizer = OPTIMIZERS[name](model.parameters())
    inputs, targets = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 5
    losses = [step(model, optimizer, inputs, targets) for _ in range(3 if saving else 0)]
    weights, state = get_state_dict(model, optimizer)
    parts = {"model": weights, "optimizer": state}
    if saving:
        dcp.save(parts, checkpoint_id=f"{folder}/checkpoint")
    else:
        dcp.load(parts, checkpoint_id=f"{folder}/checkpoint")
        set_state_dict(model, optimizer, model_state_dict=parts["model"], optim_state_dict=parts["optimizer"])
        assert optimizer.steps == 3
    losses += [step(model, optimizer, inputs, targets) for _ in range(3)]
    whole = {name: p.full_tensor().flatten().tolist() for name, p in model.named_parameters()}
    if rank == 0:
        Path(f"{folder}/{world}-{'save' if saving else 'load'}.json").write_text(json.dumps([losses, whole]))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    for world, saving in ((2, True), (2, False), (4, False), (1, False)):
        ranks = [fork.Process(target=run, args=(rank, world, *sys.argv[1:3], saving)) for rank in range(world)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            sys.exit(1)
