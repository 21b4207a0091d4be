"""DistributedDataParallel and fully_shard with two gloo processes, against one process that has the whole batch."""

import copy

import pytest
import torch
import torch._dynamo  # DistributedDataParallel imports it: here once for both processes
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from hessiod.core.errors import InvalidState
from hessiod.torch import SophiaG, SophiaH, gauss_newton_diagonal, hessian_diagonal, hessian_trace, hvp

ROWS = 8


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5).eval(), nn.Tanh(), nn.Linear(5, 4))


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, 3, generator=generator), torch.arange(ROWS) % 4


def part():
    """This process's half of the batch."""
    x, y = batch()
    half = slice(dist.get_rank() * ROWS // 2, (dist.get_rank() + 1) * ROWS // 2)
    return x[half], y[half]


def vectors(net):
    return [torch.sin(torch.arange(float(p.numel()))).view(p.shape) for p in net.parameters()]


def closure_of(net, data):
    x, y = data
    return lambda: F.cross_entropy(net(x), y)


def whole():
    net = model()
    params = list(net.parameters())
    closure = closure_of(net, batch())
    return (
        hvp(closure, params, vectors(net)),
        hessian_diagonal(closure, params, samples=2),
        hessian_trace(closure, params, samples=3),
    )


def close(found, expected, tolerance):
    found, expected = (torch.cat([t.detach().flatten() for t in tensors]) for tensors in (found, expected))
    assert (found - expected).norm() <= tolerance * expected.norm(), (found, expected)


def same_everywhere(tensors):
    for tensor in tensors:
        others = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(others, tensor.contiguous())
        assert all(torch.equal(other, tensor) for other in others)


def data_parallel():
    products, diagonal, trace = whole()
    net = DistributedDataParallel(model())
    params, closure = list(net.parameters()), closure_of(net, part())
    closure().backward()
    before = [p.grad.clone() for p in params]
    for method, tolerance in [("auto", 1e-5), ("forward", 1e-5), ("finite-difference", 1e-3)]:
        close(hvp(closure, params, vectors(net), method), products, tolerance)
    close(hessian_diagonal(closure, params, samples=2), diagonal, 1e-5)
    found = hessian_trace(closure, params, samples=3)
    assert abs(found.value - trace.value) < 1e-5 * abs(trace.value)
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))
    net.zero_grad()
    closure().backward()  # the reducer is as it was
    assert all(torch.allclose(p.grad, g) for p, g in zip(params, before, strict=True))
    x, _ = part()
    estimate = gauss_newton_diagonal(lambda: net(x), params, samples=3)
    same_everywhere(estimate)


def sampled_targets_differ():
    """Equal rows on both processes: equal draws would double the gradient and quadruple the estimate's variance."""
    net = DistributedDataParallel(nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        net.module.weight.zero_()
    (found,) = gauss_newton_diagonal(lambda: net(torch.ones(1, 1)), list(net.parameters()), samples=400)
    assert abs(found[0, 0] - 0.25) < 0.06  # E = p (1 - p); the same draw on both gives 0.5


def optimizers():
    """The estimate of an optimizer is of all processes' loss, from a closure and from the training forward alike."""
    x, y = part()
    for kind in (SophiaH, SophiaG):
        for fresh in (True, False):
            net = DistributedDataParallel(model())
            opt = kind(net.parameters(), betas=(0.0, 0.0))
            for _ in range(2):

                def closure(net=net):
                    logits = net(x)
                    return F.cross_entropy(logits, y), logits

                loss, logits = closure()
                if opt.curvature_due:
                    opt.update_curvature(**(dict(closure=closure) if fresh else dict(loss=loss, logits=logits)))
                if fresh:
                    loss, _ = closure()
                loss.backward()
                opt.step()
                opt.zero_grad()
            same_everywhere([state["hessian"] for state in opt.state.values()])
            same_everywhere([p.detach() for p in net.parameters()])
            if kind is SophiaH:
                expected = hessian_diagonal_of_step_one()
                close([opt.state[p]["hessian"] for p in net.parameters()], expected, 1e-5)


def hessian_diagonal_of_step_one():
    net = model()
    opt = SophiaH(net.parameters(), betas=(0.0, 0.0))
    closure = closure_of(net, batch())
    opt.update_curvature(closure=closure)
    closure().backward()
    opt.step()
    return [opt.state[p]["hessian"] for p in net.parameters()]


def sharded():
    products, diagonal, _ = whole()
    net = model()
    fully_shard(net[0])
    fully_shard(net)
    params, closure = list(net.parameters()), closure_of(net, part())
    closure().backward()
    before = [p.grad.full_tensor().clone() for p in params]
    directions = [shard(v, p) for v, p in zip(vectors(model()), params, strict=True)]
    for method in ("auto", "reverse", "forward"):
        with pytest.raises(InvalidState, match=r"fully_shard \(FSDP2\) .* method=\"finite-difference\""):
            hvp(closure, params, directions, method)
    found = hvp(closure, params, directions, "finite-difference")
    close([h.full_tensor() for h in found], products, 1e-3)
    found = hessian_diagonal(closure, params, samples=2, method="finite-difference")
    close([h.full_tensor() for h in found], diagonal, 1e-3)
    assert all(torch.equal(p.grad.full_tensor(), g) for p, g in zip(params, before, strict=True))
    weights = [p.full_tensor() for p in params]
    assert all(torch.equal(w, p) for w, p in zip(weights, model().parameters(), strict=True))
    x, _ = part()
    estimate = gauss_newton_diagonal(lambda: net(x), params, samples=2)
    replicated = DistributedDataParallel(copy.deepcopy(model()))
    expected = gauss_newton_diagonal(lambda: replicated(x), list(replicated.parameters()), samples=2)
    close([h.full_tensor() for h in estimate], expected, 1e-5)
    folded = {}
    for kind, wrapped in (("sharded", net), ("replicated", replicated)):
        opt = SophiaG(wrapped.parameters(), betas=(0.0, 0.0))
        closure = closure_of(wrapped, part())
        opt.update_curvature(closure=lambda wrapped=wrapped: loss_and_logits(wrapped))
        closure().backward()
        opt.step()
        folded[kind] = [opt.state[p]["hessian"] for p in wrapped.parameters()]
    close([h.full_tensor() for h in folded["sharded"]], folded["replicated"], 1e-5)
    opt, loss = SophiaH(net.parameters()), closure_of(net, part())()
    with pytest.raises(InvalidState, match="fully_shard"):
        opt.update_curvature(loss=loss)


def loss_and_logits(net):
    x, y = part()
    logits = net(x)
    return F.cross_entropy(logits, y), logits


def shard(tensor, like):
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements)


def run(rank, jobs, port):
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        for job in jobs:
            job()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "jobs", [(data_parallel, sampled_targets_differ, optimizers), (sharded,)], ids=["DDP", "FSDP2"]
)
def test_two_processes_give_what_one_gives(jobs):
    store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    mp.start_processes(run, (jobs, store.port), nprocs=2, start_method="fork")
