"""Four micro-batches equal the one batch that they make up, curvature included.

Probes and sampled targets differ from call to call by design, so here they are fixed: every call takes the same probe,
and a target is a function of its example.
"""

import pytest
import torch
from torch.nn import functional as F

from hessiod.core import philox
from hessiod.core.likelihood import RESIDUALS
from hessiod.torch import AdaHessian, AdamW, Apollo, DiagonalNewton, SophiaG, SophiaH

KINDS = {
    "sophia-g": lambda params: SophiaG(params, lr=0.01, rho=1.0, every=2),
    "sophia-h": lambda params: SophiaH(params, lr=0.01, rho=1.0, every=2),
    "adahessian": lambda params: AdaHessian(params, lr=0.01, every=2),
    "diagonal-newton": lambda params: DiagonalNewton(params, lr=0.01, damping=0.1, every=2),
    "apollo": lambda params: Apollo(params, lr=0.01, sigma=0.1, warmup=3),
    "adamw": lambda params: AdamW(params, lr=0.01),
}
ROWS = 32


@pytest.fixture(autouse=True)
def _fixed_draws(monkeypatch):
    probes = philox.rademacher_probes
    monkeypatch.setitem(
        philox.PROBES, "rademacher", lambda xp, likes, *, sample, **key: probes(xp, likes, sample=0, **key)
    )

    def residual(xp, logits, seed, step, sample, first, draw):
        """The last column of the logits says which example a row is; its target is the number modulo 3."""
        targets = logits[:, -1].round().long() % 3
        return torch.cat([torch.softmax(logits[:, :3], -1) - F.one_hot(targets, 3), 0 * logits[:, 3:]], dim=-1)

    monkeypatch.setitem(RESIDUALS, "categorical", residual)


def run(make, parts, steps=7):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    opt = make(model.parameters())
    for step in range(steps):
        x = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(step))
        y = torch.randint(3, (ROWS,), generator=torch.Generator().manual_seed(step))
        due = getattr(opt, "curvature_due", False)
        for rows in torch.arange(ROWS).split(ROWS // parts):
            logits = torch.cat([model(x[rows]), rows[:, None].float()], dim=-1)
            loss = F.cross_entropy(logits[:, :3], y[rows]) + 0.0 * logits.square().sum()
            if due:
                opt.update_curvature(loss=loss / parts, logits=logits, scale=1 / parts)
            (loss / parts).backward()
        opt.step()
        opt.zero_grad()
    params = list(model.parameters())
    slots = [torch.cat([opt.state[p][s].flatten() for p in params]) for s in opt.rule_of(opt.param_groups[0]).slots]
    return [torch.cat([p.detach().flatten() for p in params]), *slots]


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_four_micro_batches_are_one_batch(make):
    for whole, parts in zip(run(make, 1), run(make, 4), strict=True):
        assert whole.norm() > 0
        assert (parts - whole).norm() / whole.norm() < 1e-5


def test_unequal_micro_batches_count_their_own_targets():
    """12 + 20 examples: SophiaG adds gradients and counts before it squares, whatever the parts."""

    def estimate(*sizes):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(5, 3))
        opt, x = SophiaG([weight]), torch.randn(ROWS, 5)
        for rows in torch.arange(ROWS).split(sizes):
            logits = torch.cat([x[rows] @ weight, rows[:, None].float()], dim=-1)
            opt.update_curvature(loss=F.cross_entropy(logits[:, :3], rows % 3), logits=logits)
        return opt._estimates()[weight]

    torch.testing.assert_close(estimate(12, 20), estimate(32), rtol=1e-5, atol=0)
