"""Trajectories against independent implementations, in float64: equal where the algorithms are, explained where not."""

import pytest
import torch

from hessiod.torch import Apollo, SophiaH

STEPS = 50
pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
torch_optimizer = pytest.importorskip("torch_optimizer")


def start():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in [(4, 3), (5,), (2, 2)]
    ]


def loss_of(params, step):
    """Not convex, with curvature that depends on the place, and changing with the step."""
    generator = torch.Generator().manual_seed(step)
    loss = torch.zeros((), dtype=torch.float64)
    for param in params:
        target = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        loss = loss + ((param - target) ** 2).sum() + torch.sin(2 * param).sum() + (param**4).sum() / 40
    return loss


def path(params, advance, steps=STEPS):
    """All parameters after each step."""
    found = []
    for step in range(steps):
        for param in params:
            param.grad = None
        advance(step)
        found.append(torch.cat([param.detach().flatten() for param in params]))
    return torch.stack(found)


def relative(ours, theirs):
    """The largest difference, relative to each entry's size along its path."""
    return ((ours - theirs).abs() / theirs.abs().amax(dim=0)).max().item()


def plainly(opt, params):
    def advance(step):
        loss_of(params, step).backward()
        opt.step()

    return advance


# Sophia of pytorch_optimizer: the paper's first version, clip(m / max(h, eps), +-p)

RATE, P, EPS = 0.6, 0.02, 1e-12
DECAY = 0.1


def hessians(step):
    """Curvature given to both, some of it negative."""
    generator = torch.Generator().manual_seed(1000 + step)
    return [3000 * (torch.randn(param.shape, generator=generator, dtype=torch.float64) + 1) for param in start()]


def their_sophia(**more):
    settings = dict(lr=RATE, betas=(0.96, 0.99), p=P, update_period=10, eps=EPS, weight_decay=DECAY) | more
    params = start()
    opt = pytorch_optimizer.SophiaH(params, **settings)

    def advance(step):
        loss_of(params, step).backward()
        opt.step(hessian=hessians(step) if step % 10 == 0 else None)

    return path(params, advance)


def our_sophia(**more):
    settings = dict(lr=RATE * P, betas=(0.96, 0.99), rho=P, eps=EPS * P, weight_decay=DECAY / P) | more
    params, clipped = start(), []
    opt = SophiaH(params, **settings)

    def advance(step):
        loss_of(params, step).backward()
        given = dict(zip(params, hessians(step), strict=True)) if step % 10 == 0 else None
        opt._estimates = lambda: given  # the same curvature, not the same probes
        opt.step()
        clipped.append(opt.clip_fraction())

    return path(params, advance), clipped


def test_sophia_is_pytorch_optimizers_with_the_rate_divided_by_its_bound():
    """lr, rho, eps and decay of ours are lr * p, p, eps * p and decay / p of theirs."""
    ours, clipped = our_sophia()
    assert 0.1 < sum(clipped) / STEPS < 0.9
    assert relative(ours, their_sophia()) < 1e-6


def test_sophia_with_pytorch_optimizers_own_numbers_is_another_run():
    """The largest step is lr in Algorithm 3 of the paper's final version; theirs is lr * p, as in the first version."""
    ours, _ = our_sophia(lr=RATE, eps=EPS, weight_decay=DECAY)
    first = (ours[0] - torch.cat([p.detach().flatten() for p in start()])).abs()
    theirs = (their_sophia()[0] - torch.cat([p.detach().flatten() for p in start()])).abs()
    assert first.max() > RATE * 0.99
    assert theirs.max() < RATE * P + RATE * DECAY * 4
    assert relative(ours, their_sophia()) > 0.1


# Apollo


@pytest.mark.parametrize("decay", ["L2", "decoupled", "stable"])
def test_apollo_is_pytorch_optimizers_apollodqn_without_a_warmup(decay):
    mine, reference = start(), start()
    ours = Apollo(mine, lr=0.002, weight_decay=0.05, weight_decay_type=decay, warmup=0)
    theirs = pytorch_optimizer.ApolloDQN(
        reference, lr=0.002, weight_decay=0.05, weight_decay_type=decay.lower(), warmup_steps=0
    )
    assert relative(path(mine, plainly(ours, mine)), path(reference, plainly(theirs, reference))) < 1e-6


def test_apollos_warmup_counts_from_zero_as_its_authors_and_apollodqns_from_one():
    """The author's code takes (lr - init) * step / warmup + init with the step before it is counted up."""
    moved = []
    for kind, name in ((Apollo, "warmup"), (pytorch_optimizer.ApolloDQN, "warmup_steps")):
        theta = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        opt = kind([theta], lr=0.01, **{name: 10})
        theta.grad = torch.ones_like(theta)
        opt.step()
        moved.append(-theta.item())
    assert moved[0] == pytest.approx(1e-5 / 0.01)  # init, times m / sigma
    assert moved[1] == pytest.approx((1e-5 + (0.01 - 1e-5) / 10) / 0.01)


@pytest.mark.parametrize("scale", [1.0, 0.01], ids=["sigma 1", "sigma 0.01"])
def test_apollo_is_torch_optimizers_of_september_2020_by_theorem_1(scale):
    """Theirs has sigma 1 and L2 only. eps is divided by sigma in ours, so it is the same for every sigma."""
    mine, reference = start(), start()
    warmup = dict(warmup=20, warmup_start=0.1)
    ours = Apollo(mine, lr=0.3 * scale, sigma=scale, eps=1e-4, weight_decay=0.05, **warmup)
    theirs = torch_optimizer.Apollo(reference, lr=0.3, eps=1e-4, warmup=20, init_lr=0.03, weight_decay=0.05)
    assert relative(path(mine, plainly(ours, mine)), path(reference, plainly(theirs, reference))) < 1e-6
