"""A step in MindSpore on the CPU, between two curvature estimates, against its own optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.bench.lists import LISTS, TITLES
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.timing import interleaved
from hessiod.mindspore import SGD, AdaHessian, AdamW, Apollo, DiagonalNewton, SophiaH

ADAM, DECAYED = "nn.Adam", "nn.AdamWeightDecay"
RATE = 1e-9

OURS: dict[str, Callable[..., Any]] = {
    "Sophia": SophiaH,
    "AdaHessian": AdaHessian,
    "Apollo": Apollo,
    "DiagonalNewton": DiagonalNewton,
    "AdamW": AdamW,
    "SGD momentum": lambda params, **more: SGD(params, momentum=0.9, **more),
}
LIMITS = {"hundred": {ADAM: 1.1}, "small": {ADAM: 0.3}}
"""What was aimed at, in units of nn.Adam."""
FASTER = 4.0
"""How many times as long nn.AdamWeightDecay should take."""


def rows(settings: Settings) -> Iterator[Row]:
    """Every list in turn; a list's candidates share parameters and gradients and hold state of their own."""
    ms.runtime.dispatch_threads_num(settings.threads)
    for name in settings.lists:
        yield from list_rows(name, settings)


def list_rows(name: str, settings: Settings) -> Iterator[Row]:
    """The rows of one list."""
    generator = np.random.default_rng(0)
    shapes = LISTS[name]()
    arrays = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    params = [Parameter(Tensor(0.02 * array), name=f"p{place}") for place, array in enumerate(arrays)]
    gradients = tuple(Tensor(0.01 * array) for array in arrays)
    candidates = {label: ours(kind(params, learning_rate=RATE), gradients) for label, kind in OURS.items()}
    candidates[ADAM] = stepper(nn.Adam(params, learning_rate=RATE), gradients)
    candidates[DECAYED] = stepper(nn.AdamWeightDecay(params, learning_rate=RATE), gradients)
    times = interleaved(candidates, rounds=settings.rounds)
    group = f"MindSpore, {TITLES[name]}"
    for label in OURS:
        for peer, limit, at_least in ((ADAM, LIMITS.get(name, {}).get(ADAM), False), (DECAYED, FASTER, True)):
            value = times.ratio(peer, label) if at_least else times.ratio(label, peer)
            detail = f"{1e3 * times.median(label):.2f} ms against {1e3 * times.median(peer):.2f} ms"
            first, second = (peer, label) if at_least else (label, peer)
            yield Row(group, first, second, value, "x", limit, at_least=at_least, detail=detail)


def ours(optimizer: RuleOptimizer, gradients: tuple[Tensor, ...]) -> Callable[[], Any]:
    """Steps that want no curvature; where the rule has some, a first estimate is folded in before and not timed."""
    if optimizer.second_order:
        optimizer.host.take(optimizer, gradients, estimates=gradients)
    return stepper(optimizer, gradients, RuleOptimizer.__call__)


def stepper(optimizer: Any, gradients: tuple[Tensor, ...], call: Callable[..., Any] = nn.Cell.__call__) -> Any:
    """A step that has ended when it returns."""

    def step() -> None:
        call(optimizer, gradients)
        optimizer.parameters[-1].asnumpy()

    return step
