"""What curvature adds to a whole training step when it is folded in every tenth step, on a small GPT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends_torch.gpt import GPT
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.timing import Times, clock_for, interleaved
from hessiod.torch import SophiaG, SophiaH

EVERY = 10
ROWS, CONTEXT = 16, 64
PART = 8
"""Hutchinson's product takes one row in so many."""
ADAMW = "torch AdamW(fused)"
NEVER = 10**9
KINDS = {"Gauss-Newton, the step's own forward": 8.0, f"Hutchinson, 1/{PART} of the batch": 6.0}
"""Estimators and the share of a training step, in percent, that they may take."""


def rows(settings: Settings) -> Iterator[Row]:
    """Each estimator's share of a step, and steps with it against steps with torch's AdamW."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        times = interleaved(candidates(), rounds=settings.rounds, clock=clock_for(settings.threads))
    finally:
        torch.set_num_threads(before)
    group = f"training, GPT, 4 layers of 128, every={EVERY}, {settings.threads} thread{'s' * (settings.threads > 1)}"
    for name, limit in KINDS.items():
        plain, refreshed = f"{name}: without", f"{name}: with"
        share = 100 * (times.ratio(refreshed, plain) - 1) / EVERY
        detail = f"{1e3 * times.median(refreshed):.1f} ms with curvature, {1e3 * times.median(plain):.1f} ms without"
        yield Row(group, name, "a training step", share, "%", limit, detail=detail)
    for name in KINDS:
        yield Row(group, f"steps with Sophia, {name}", f"steps with {ADAMW}", against_adamw(times, name), "x")


def against_adamw(times: Times, name: str) -> float:
    """Ten steps, one of them with curvature, in units of ten steps with AdamW; the median over rounds."""
    found = (times.seconds[key] for key in (f"{name}: with", f"{name}: without", ADAMW))
    return median((one + (EVERY - 1) * other) / EVERY / base for one, other, base in zip(*found, strict=True))


def candidates() -> dict[str, Callable[[], Any]]:
    """Training steps by name: each has a model of its own."""
    found = {ADAMW: trained(partial(torch.optim.AdamW, lr=1e-4, fused=True))}
    for name, kind in zip(KINDS, (SophiaG, SophiaH), strict=True):
        found[f"{name}: without"] = trained(partial(kind, lr=1e-4, every=NEVER))
        found[f"{name}: with"] = trained(partial(kind, lr=1e-4, every=1))
    return found


def trained(make: Callable[[Any], Any]) -> Callable[[], Any]:
    """A training step: forward, curvature where it is due, backward, update."""
    torch.manual_seed(0)
    config = GPTConfig(layers=4, width=128, heads=4, context=CONTEXT)
    model, tokens = GPT(config), torch.randint(config.vocabulary, (ROWS, CONTEXT + 1))
    optimizer = make(model.parameters())

    def forward(rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(rows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()), logits

    def step() -> None:
        loss, logits = forward(tokens)
        if getattr(optimizer, "curvature_due", False):
            if isinstance(optimizer, SophiaG):
                optimizer.update_curvature(loss=loss, logits=logits)
            else:
                optimizer.update_curvature(closure=lambda: forward(tokens[: ROWS // PART])[0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
