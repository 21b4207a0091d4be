"""What curvature costs in gradients, a gradient being a forward and a backward of the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends_torch.gpt import GPT
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.timing import interleaved
from hessiod.bench.torch_memory import allocated_peak
from hessiod.torch import SophiaG, SophiaH, hvp

Forward = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def rows(settings: Settings) -> Iterator[Row]:
    """Products and refreshes on a GPT and on a perceptron."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        for name, make in (("GPT, 4 layers of 128", gpt), ("MLP, 784-512-512-10", perceptron)):
            model, forward = make()
            group = f"curvature, {name}, {settings.threads} thread{'s' if settings.threads > 1 else ''}"
            yield from model_rows(group, model, forward, settings.rounds)
        yield memory_row("curvature, GPT, 12 layers of 128", candidates_for(*gpt(layers=12)))
    finally:
        torch.set_num_threads(before)


def model_rows(group: str, model: nn.Module, forward: Forward, rounds: int) -> Iterator[Row]:
    """Times, and peaks of memory."""
    candidates = candidates_for(model, forward)
    times = interleaved(candidates, rounds=rounds)
    gradient = times.median("gradient")
    for name, beyond, limit in (
        ("hvp", 1.0, 3.0),
        ("Hutchinson refresh", 1.0, 3.0),
        ("Gauss-Newton refresh", 1.0, 0.75),
    ):
        detail = f"{times.median(name) * 1e3:.1f} ms, gradient {gradient * 1e3:.1f} ms"
        yield Row(
            group,
            f"{name}, beyond a gradient",
            "gradient",
            times.ratio(name, "gradient") - beyond,
            "x",
            limit,
            detail=detail,
        )
    yield memory_row(group, candidates)


def memory_row(group: str, candidates: dict[str, Callable[[], Any]]) -> Row:
    """A product's peak against a gradient's; the first call, which looks for the method, is not measured."""
    candidates["hvp"]()
    peaks = {name: allocated_peak(candidates[name]) for name in ("gradient", "hvp")}
    detail = f"gradient {peaks['gradient']:.0f} MiB above model and vectors"
    return Row(group, "hvp, peak memory", "gradient's peak", peaks["hvp"] / peaks["gradient"], "x", 2.7, detail=detail)


def candidates_for(model: nn.Module, forward: Forward) -> dict[str, Callable[[], Any]]:
    """By name; each leaves the weights as they are."""
    params = list(model.parameters())
    vectors = [torch.ones_like(param) for param in params]

    def gradient() -> Any:
        return torch.autograd.grad(forward()[0], params)

    def refreshing(kind: Any) -> Callable[[], Any]:
        def refresh() -> Any:
            optimizer = kind(params)  # nothing of an earlier estimate is added to
            loss, logits = forward()
            optimizer.update_curvature(loss=loss, logits=logits)
            return torch.autograd.grad(loss, params)

        return refresh

    return {
        "gradient": gradient,
        "hvp": lambda: hvp(lambda: forward()[0], params, vectors, "reverse"),
        "Hutchinson refresh": refreshing(SophiaH),
        "Gauss-Newton refresh": refreshing(SophiaG),
    }


def gpt(layers: int = 4) -> tuple[nn.Module, Forward]:
    """A batch of 16 rows of 64 tokens."""
    torch.manual_seed(0)
    config = GPTConfig(layers=layers, width=128, heads=4, context=64)
    model, tokens = GPT(config), torch.randint(config.vocabulary, (16, 65))

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()), logits

    return model, forward


def perceptron() -> tuple[nn.Module, Forward]:
    """A batch of 512."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 10))
    x, y = torch.randn(512, 784), torch.randint(10, (512,))

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(x)
        return F.cross_entropy(logits, y), logits

    return model, forward
