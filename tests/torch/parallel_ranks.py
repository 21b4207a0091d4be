"""Training on several gloo processes, in every way that the tests compare with one process."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from functools import partial

import torch
import torch._dynamo  # DistributedDataParallel imports it: here once for all processes
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from hessiod.core.errors import HessiodError
from hessiod.torch import KFAC, SGD, SPNGD, THOR, AdaHessian, AdamW, Apollo, ApolloW, DiagonalNewton, SophiaG, SophiaH

BATCH, STEPS, CLASSES = 16, 20, 5
# The bounds of clip_grad are below the norms of most steps, so that those are worked out over all processes.
DIAGONAL = {
    "sophia-g": partial(SophiaG, lr=0.01, rho=0.5, every=4, clip_grad=0.1),
    "sophia-h": partial(SophiaH, lr=0.01, rho=0.5, every=4, samples=2),
    "adahessian": partial(AdaHessian, lr=0.02, every=2),
    "diagonal-newton": partial(DiagonalNewton, lr=0.02, damping=0.1, every=4),
    "apollo": partial(Apollo, lr=0.02, sigma=0.1, warmup=3, weight_decay=0.01),
    "apollo-stable": partial(
        Apollo, lr=0.02, sigma=0.1, warmup=3, weight_decay=0.01, weight_decay_type="stable", clip_grad=0.1
    ),
    "apollow": partial(ApolloW, lr=0.02, sigma=0.1, warmup=3, weight_decay=0.01),
    "adamw": partial(AdamW, lr=0.02, clip_grad=0.1),
    "sgd": partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
}
KRONECKER = {
    "kfac": partial(KFAC, lr=0.1, damping=0.01, factor_every=2, inverse_every=4),
    "kfac-empirical": partial(KFAC, lr=0.1, damping=0.01, fisher="empirical", factor_every=2, inverse_every=4),
    "spngd": partial(SPNGD, lr=0.1, damping=0.01),
    "thor": partial(THOR, lr=0.1, damping=0.01, factor_every=2, block_size=5),
}
HUTCHINSON = {"sophia-h", "adahessian", "diagonal-newton"}
DDP = {
    "plain": {},
    "static-graph": dict(static_graph=True),
    "bucket-view": dict(gradient_as_bucket_view=True),
    "unused": dict(find_unused_parameters=True),
    "no-sync": {},
}
HALF = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32)


class Halved(nn.Module):
    """What FSDP2 under :data:`HALF` works out: the parts of a batch one by one, with weights in bfloat16."""

    def __init__(self, parts):
        super().__init__()
        self.net, self.parts = Net(torch.float32), parts

    def forward(self, x):
        return torch.cat([self.halved(rows.bfloat16()) for rows in x.chunk(self.parts)]).float()

    def halved(self, rows):
        """Weights are cast for each part anew, so that its gradients are in float32 before they are added."""
        half = {name: param.bfloat16() for name, param in self.net.named_parameters()}
        return torch.func.functional_call(self.net, half, rows)


class Net(nn.Module):
    """Layers whose sizes processes do not divide, but for ``up`` and ``down``, which tensor parallelism splits."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.up, self.norm = nn.Linear(6, 7), nn.Linear(7, 12), nn.LayerNorm(7)
        self.down, self.head = nn.Linear(12, 7), nn.Linear(7, CLASSES)
        self.to(dtype)

    def forward(self, x):
        x = torch.tanh(self.inner(x))
        return self.head(self.norm(x + self.down(torch.tanh(self.up(x)))))


def batch(step, dtype=torch.float64, rows=BATCH):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(rows, 6, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(CLASSES, (rows,), generator=generator)


def parts_of(step, rank, ranks, micro, dtype):
    """This rank's part of each micro-batch: rank r's rows go on where those of rank r - 1 end."""
    x, y = batch(step, dtype)
    return [
        (xs.chunk(ranks)[rank], ys.chunk(ranks)[rank]) for xs, ys in zip(x.chunk(micro), y.chunk(micro), strict=True)
    ]


def train(model, opt, rank=0, ranks=1, *, micro=1, fresh=False, method="auto", dtype=torch.float64, steps=STEPS):
    """``fresh``: curvature from a closure, as FSDP2 needs it; else from the forward that is trained on."""
    for step in range(steps):
        parts = parts_of(step, rank, ranks, micro, dtype)
        due = getattr(opt, "curvature_due", False)
        for place, (x, y) in enumerate(parts):
            if due and fresh:
                settings = {} if isinstance(opt, SophiaG) else dict(method=method)
                opt.update_curvature(closure=partial(loss_and_logits, model, x, y), **settings)
            last = place + 1 == len(parts) or not hasattr(model, "no_sync")
            with contextlib.nullcontext() if last else model.no_sync():
                loss, logits = loss_and_logits(model, x, y)
                if due and not fresh:
                    opt.update_curvature(loss=loss, logits=logits)
                (loss / len(parts)).backward()
        opt.step()
        opt.zero_grad()
    return weights(model)


def loss_and_logits(model, x, y):
    logits = model(x)
    return F.cross_entropy(logits, y), logits


def weights(model):
    """Every weight in one vector; of shards, the whole."""
    found = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    return torch.cat([p.detach().flatten() for p in found])


def alone(name, halved=0, **settings):
    """What one process ends with that has the whole batch."""
    make = (DIAGONAL | KRONECKER)[name]
    model = Halved(halved) if halved else Net(settings.get("dtype", torch.float64))
    return train(model, make(model if name in KRONECKER else model.parameters()), **settings)


def method_of(name):
    return "finite-difference" if name in HUTCHINSON else "auto"


# Several processes


def run(cases, ranks, folder):
    """What every rank found for every case, which are functions of the rank and of their number."""
    store = dist.TCPStore("127.0.0.1", 0, ranks, is_master=True, wait_for_workers=False)
    mp.start_processes(_rank, (ranks, store.port, cases, str(folder)), nprocs=ranks, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _rank(rank, ranks, port, cases, folder):
    torch.set_num_threads(1)
    logging.getLogger("torch.distributed.tensor").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`use_reentrant`|Full backward hook|.*_register_pre_backward_hook.*")
    store = dist.TCPStore("127.0.0.1", port, ranks, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    torch.save({label: case(rank, ranks) for label, case in cases.items()}, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def refusal(call):
    """The message of the error that a call ends with."""
    try:
        call()
    except HessiodError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


# Wrapped


def data_parallel(name, variant, dtype, rank, ranks):
    model = DistributedDataParallel(Net(dtype), **DDP[variant])
    opt = DIAGONAL[name](model.parameters())
    settings = dict(micro=2 if variant == "no-sync" else 1, fresh=variant == "static-graph", dtype=dtype)
    return train(model, opt, rank, ranks, **settings)


def kronecker(name, rank, ranks):
    model = Net()
    return train(model, KRONECKER[name](model, process_group=True), rank, ranks)


def sharded(name, rank, ranks, mesh=None):
    model = shard(Net(), mesh)
    opt = DIAGONAL[name](model.parameters())
    return train(model, opt, rank, ranks, fresh=True, method=method_of(name))


def shard(model, mesh=None, policy=MixedPrecisionPolicy()):  # noqa: B008 - frozen
    mesh = mesh or init_device_mesh("cpu", (dist.get_world_size(),))
    for part in (model.inner, model.up, model.down):
        fully_shard(part, mesh=mesh, mp_policy=dataclasses.replace(policy, output_dtype=None))
    return fully_shard(model, mesh=mesh, mp_policy=policy)


def sharded_in_half_precision(name, rank, ranks):
    model = shard(Net(torch.float32), policy=HALF)
    return train(model, DIAGONAL[name](model.parameters()), rank, ranks, fresh=True, dtype=torch.float32)


def split(model, mesh):
    """Tensor parallelism over the two middle layers."""
    return parallelize_module(model, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def tensor_parallel(name, rank, ranks):
    """Every process sees the whole batch."""
    model = split(Net(), init_device_mesh("cpu", (ranks,)))
    opt = DIAGONAL[name](model.parameters())
    return train(model, opt, fresh=name in HUTCHINSON, method=method_of(name))


def sharded_and_split(name, rank, ranks):
    """FSDP2 over the first dimension of a mesh, tensor parallelism over the second."""
    mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("data", "tensor"))
    model = shard(split(Net(), mesh["tensor"]), mesh["data"])
    opt = DIAGONAL[name](model.parameters())
    return train(model, opt, mesh.get_local_rank("data"), 2, fresh=True, method=method_of(name))


def hybrid(name, rank, ranks):
    """Replicated over the first dimension of a mesh, sharded over the second."""
    mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=("replicate", "shard"))
    return sharded(name, rank, ranks, mesh)


# Bytes and refusals


@contextlib.contextmanager
def counted():
    """Bytes that enter collectives, by what the collective is called."""
    found, kept = dict[str, int](), {}

    def counting(name):
        def call(*arguments, **options):
            given = [*arguments, *(value for value in options.values() if torch.is_tensor(value))]
            tensor = given[0] if name == "all_reduce" else max(given[:2], key=torch.Tensor.numel)  # the whole one
            found[name] = found.get(name, 0) + tensor.numel() * tensor.element_size()
            return kept[name](*arguments, **options)

        return call

    for name in ("all_reduce", "all_gather_single", "reduce_scatter_single"):
        kept[name] = getattr(dist, name)
        setattr(dist, name, counting(name))
    try:
        yield found
    finally:
        for name, function in kept.items():
            setattr(dist, name, function)


def costs(way, name, rank, ranks):
    """State of this rank, and bytes of one refresh and of the step's own forward and backward."""
    sent = []

    def hook(_, bucket):
        sent.append(bucket.buffer().numel() * bucket.buffer().element_size())
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0] / ranks)

    model = Net(torch.float32)
    if way == "fsdp2":
        fully_shard(model, reshard_after_forward=True)
    else:
        model = DistributedDataParallel(model)
        model.register_comm_hook(None, hook)
    opt = DIAGONAL[name](model.parameters())
    x, y = (part.chunk(ranks)[rank] for part in batch(0, torch.float32))
    closure = partial(loss_and_logits, model, x, y)
    settings = {} if name == "sophia-g" else dict(method="finite-difference")
    opt.update_curvature(closure=closure, **settings)  # the first call of a closure looks at it
    opt._pending = None
    with counted() as refresh:
        opt.update_curvature(closure=closure, **settings)
        opt._pending.estimates()
    with counted() as step:
        loss_and_logits(model, x, y)[0].backward()
    opt.step()
    local = [
        slot.to_local() if isinstance(slot, DTensor) else slot
        for s in opt.state.values()
        for slot in s.values()
        if torch.is_tensor(slot)
    ]
    gathered = ("all_gather_single", "reduce_scatter_single")
    return dict(
        state=sum(t.numel() * t.element_size() for t in local),
        refresh=refresh if way == "ddp" else sum(refresh.get(kind, 0) for kind in gathered),
        step=sum(sent) if way == "ddp" else sum(step.get(kind, 0) for kind in gathered),
    )


def refusals(rank, ranks):
    """What is said where curvature cannot be had, and a NaN in one rank's shard."""
    x, y = (part.chunk(ranks)[rank] for part in batch(0))
    static = DistributedDataParallel(Net(), static_graph=True)
    whole, split = shard(Net()), globals()["split"](Net(), init_device_mesh("cpu", (ranks,)))
    halved = shard(Net(torch.float32), policy=HALF)
    found = {
        "static": refusal(
            lambda: SophiaG(static.parameters()).update_curvature(
                **dict(zip(("loss", "logits"), loss_and_logits(static, x, y), strict=True))
            )
        ),
        "fsdp2, graph": refusal(
            lambda: SophiaH(whole.parameters()).update_curvature(loss=loss_and_logits(whole, x, y)[0])
        ),
        "fsdp2, exact": refusal(
            lambda: SophiaH(whole.parameters()).update_curvature(closure=lambda: loss_and_logits(whole, x, y)[0])
        ),
        "tensor, graph": refusal(
            lambda: SophiaH(split.parameters()).update_curvature(loss=loss_and_logits(split, x, y)[0])
        ),
        "tensor, exact": refusal(
            lambda: SophiaH(split.parameters()).update_curvature(closure=lambda: loss_and_logits(split, x, y)[0])
        ),
        "fsdp2, half precision": refusal(
            lambda: SophiaH(halved.parameters()).update_curvature(
                closure=lambda: loss_and_logits(halved, x.float(), y)[0], method="finite-difference"
            )
        ),
        "kronecker": refusal(lambda: KFAC(whole, lr=0.1, process_group=True)),
    }
    opt = AdamW(whole.parameters())
    whole.zero_grad()
    loss_and_logits(whole, x, y)[0].backward()
    if rank == ranks - 1:
        next(whole.parameters()).grad.to_local().fill_(float("nan"))
    return found | {"nan": refusal(opt.step), "steps": opt.steps}
