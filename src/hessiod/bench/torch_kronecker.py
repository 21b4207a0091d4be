"""What a training step with a Kronecker method costs in training steps with Adam, and THOR's blocks in whole inverses.

The net has the digits autoencoder's shapes, on which these methods are tuned (docs/kronecker.md). Steps differ, so a
measurement is a whole cycle of them: K-FAC takes statistics in four of twenty and inverts in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.kronecker.matrices import cholesky_inverse
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.timing import Times, clock_for, interleaved
from hessiod.core.kronecker.inverses import BLOCK, block_inverses
from hessiod.torch import KFAC, SPNGD, THOR

WIDTHS = (64, 128, 64, 32, 8, 32, 64, 128, 64)
BATCH = 256
CYCLE = 20
LIMIT = 1.5
ADAM, GRADIENT = "torch Adam(fused)", "forward and backward"
METHODS: dict[str, Any] = {"K-FAC": (KFAC, {}), "K-FAC, empirical": (KFAC, {"fisher": "empirical"}), "THOR": (THOR, {})}
METHODS["SP-NGD"] = (SPNGD, {})
SIZE, CHEAPER = 2048, 20.0


def rows(settings: Settings) -> Iterator[Row]:
    """Each method's step, then the inverses."""
    before, clock = torch.get_num_threads(), clock_for(settings.threads)
    torch.set_num_threads(settings.threads)
    try:
        times = interleaved(candidates(), rounds=settings.rounds, clock=clock)
        inverses = interleaved(inverting(), rounds=max(3, settings.rounds // 3), warmup=1, clock=clock)
    finally:
        torch.set_num_threads(before)
    many = f"{settings.threads} thread{'s' * (settings.threads > 1)}"
    for name in METHODS:
        detail = f"a step {spent(times, name)}, Adam's {spent(times, ADAM)}, {GRADIENT} alone {spent(times, GRADIENT)}"
        limit = LIMIT if name.startswith("K-FAC") else None
        group = f"training, autoencoder, cycles of {CYCLE} steps, {many}"
        yield Row(group, name, ADAM, times.ratio(name, ADAM), "x", limit, detail=detail)
    whole, blocks = (1e3 * inverses.median(name) for name in ("whole", "blocks"))
    detail = f"{whole:.0f} ms whole, {blocks:.1f} ms in blocks"
    ratio = inverses.ratio("whole", "blocks")
    yield Row(f"inverse, {SIZE} x {SIZE}, {many}", "whole", f"blocks of {BLOCK}", ratio, "x", CHEAPER, True, detail)


def spent(times: Times, name: str) -> str:
    """A step's time, the mean over a cycle."""
    return f"{1e3 * times.median(name) / CYCLE:.2f} ms"


def candidates() -> dict[str, Callable[[], None]]:
    """Cycles of training steps by name; each has a net of its own."""
    found = {ADAM: cycle(lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, fused=True))}
    found[GRADIENT] = cycle(lambda model: None)
    targets: dict[str, Any] = {"likelihood": "bernoulli", "reduction": "batchmean"}
    for name, (kind, options) in METHODS.items():
        found[name] = cycle(partial(kind, lr=0.1, **targets, **options))
    return found


def cycle(make: Callable[[nn.Module], Any]) -> Callable[[], None]:
    """Twenty training steps: forward, statistics where they are due, backward, update."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers = [part for sizes in pairwise(WIDTHS) for part in (nn.Linear(*sizes), nn.Tanh())]
    model, batches = nn.Sequential(*layers[:-1]), torch.rand(CYCLE, BATCH, WIDTHS[0], generator=generator)
    optimizer = make(model)

    def run() -> None:
        for pixels in batches:
            logits = model(pixels)
            loss = F.binary_cross_entropy_with_logits(logits, pixels, reduction="sum") / BATCH
            if getattr(optimizer, "curvature_due", False):
                optimizer.update_curvature(loss=loss, logits=logits)
            loss.backward()
            if optimizer is not None:
                optimizer.step()
            model.zero_grad()

    return run


def inverting() -> dict[str, Callable[[], Any]]:
    """The inverse of one matrix, whole and in THOR's blocks."""
    rows = torch.randn(2 * SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    factor, damping = rows.mT @ rows / len(rows), torch.full((1, 1), 0.1)

    def invert(block: int | None) -> list[torch.Tensor]:
        return block_inverses(xp, factor, damping, inverse=cholesky_inverse, block=block)

    return {"whole": lambda: invert(None), "blocks": lambda: invert(BLOCK)}
