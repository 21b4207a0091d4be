"""A step of each rule in PyTorch, against torch's fused optimizers, other libraries, and the memory's speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from hessiod.backends import kernels
from hessiod.bench.bandwidth import stream
from hessiod.bench.lists import LISTS, TITLES
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.timing import Times, clock_for, interleaved
from hessiod.core import RULES
from hessiod.core.errors import InvalidArgument
from hessiod.core.trace import Program, traffic
from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, DiagonalNewton, SophiaH

Params = list[torch.nn.Parameter]
Candidates = dict[str, Callable[[], Any]]
FUSED = "torch AdamW(fused)"
FUSED_SGD = "torch SGD(fused)"
FUSED_CLIPPED = "clip_grad_norm_, AdamW(fused)"
UNCHECKED = ", unchecked"
CLIPPED = ", clipped"
BOUND = 1e9
"""Of the gradients' norm: too large for anything to be changed, which takes as long."""
FOREACH = "torch foreach_add"
COPY = "torch foreach_copy"
STREAMS = {f"stream {reads} to {writes}": (reads, writes) for reads, writes in ((3, 1), (3, 2), (4, 2), (4, 3))}
RATE = 1e-9  # so that parameters hardly move, however long they are timed

OURS: dict[str, tuple[Callable[..., Any], str]] = {
    "Sophia": (SophiaH, "sophia"),
    "AdaHessian": (AdaHessian, "adahessian"),
    "Apollo": (Apollo, "apollo-l2"),
    "DiagonalNewton": (DiagonalNewton, "diagonal-newton"),
    "AdamW": (AdamW, "adamw"),
    "SGD momentum": (lambda params, **more: SGD(params, momentum=0.9, **more), "sgd-momentum"),
}
"""Optimizers and the rule whose bytes they move. Sophia's two estimators have one step."""

LIMITS = {
    ("gpt", "Sophia"): 0.92,
    ("gpt2", "Sophia"): 0.92,
    ("small", "Sophia"): 0.60,
    ("gpt", "AdaHessian"): 1.10,
    ("gpt", "Apollo"): 1.50,
    ("gpt", "AdamW"): 1.02,
}
"""What was aimed at, in units of torch's fused AdamW."""

PEERS = {
    "Sophia": ("pytorch_optimizer", "SophiaH", 3.0),
    "AdaHessian": ("pytorch_optimizer", "AdaHessian", 3.0),
    "Apollo": ("torch_optimizer", "Apollo", 4.0),
}
"""The same rule in another library, and how many times faster than it ours should be."""


def rows(settings: Settings) -> Iterator[Row]:
    """Every list in turn; a list's candidates share parameters and gradients and hold state of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        for name in settings.lists:
            yield from list_rows(name, settings)
    finally:
        torch.set_num_threads(before)


def list_rows(name: str, settings: Settings) -> Iterator[Row]:
    """The rows of one list."""
    torch.manual_seed(0)
    # glibc gives freed memory back to the system until a large block was freed once, as in any training; temporaries of
    # other libraries then cost a page fault for each 4 KiB, and twice the time on small tensors.
    torch.empty(2**22).fill_(0)
    device = device_of(settings)
    params = [torch.nn.Parameter((torch.randn(shape) * 0.02).to(device)) for shape in LISTS[name]()]
    candidates = {**ours(params), **fused(params), **peers(params)}
    for param in params:
        param.grad = torch.randn_like(param) * 0.01
    candidates |= streams(params, settings.threads)
    if device.type != "cpu":
        candidates = {label: waiting(step) for label, step in candidates.items()}
    clock = clock_for(settings.threads if device.type == "cpu" else 0)
    times = interleaved(candidates, rounds=settings.rounds, clock=clock)
    where = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}" if device.type == "cpu" else str(device)
    group = f"{TITLES[name]}, {where}"
    for label in OURS:
        limit = LIMITS.get((name, label))
        yield ratio_row(group, times, label, FUSED, limit)
        yield ratio_row(group, times, label + UNCHECKED, FUSED, limit)
        yield ratio_row(group, times, label + CLIPPED, FUSED_CLIPPED, limit)
    yield ratio_row(group, times, "SGD momentum", FUSED_SGD)
    for label, (package, kind, factor) in PEERS.items():
        if f"{package} {kind}" in candidates:
            yield ratio_row(group, times, f"{package} {kind}", label, factor, at_least=True)
    aim = 88.0 if name == "gpt" and settings.threads > 1 else 85.0 if name == "gpt2" and device.type == "cuda" else None
    yield from bandwidth_rows(group, params, times, aim)


def device_of(settings: Settings) -> torch.device:
    """Where tensors are to lie."""
    found = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    if settings.device not in found:
        raise InvalidArgument(f"device: found {settings.device!r}, expected one of {', '.join(found)}, which torch has")
    return torch.device(settings.device)


def waiting(step: Callable[[], Any]) -> Callable[[], Any]:
    """A step that has ended when it returns."""

    def whole() -> None:
        step()
        torch.cuda.synchronize()

    return whole


def ratio_row(group: str, times: Times, name: str, peer: str, limit: float | None = None, **more: Any) -> Row:
    """One candidate's time in units of another's."""
    speeds = f"{1e3 * times.median(name):.2f} ms against {1e3 * times.median(peer):.2f} ms"
    detail = f"{speeds}; fastest rounds {times.fastest(name, peer):.2f}"
    return Row(group, name, peer, times.ratio(name, peer), "x", limit, detail=detail, **more)


def ours(params: Params) -> Candidates:
    """Our optimizers' steps: with the search for NaN and infinity, without, and with a bound to the gradients' norm."""
    found: dict[str, Callable[[], Any]] = {}
    for label in OURS:
        optimizer = after_a_step(label, params)
        found[label] = optimizer.step
        found[label + UNCHECKED] = altered(optimizer, "nonfinite", "ignore")
        found[label + CLIPPED] = altered(optimizer, "clip_grad", BOUND)
    return found


def after_a_step(label: str, params: Params) -> Any:
    """One of our optimizers after its first step, with curvature that will not be due again."""
    kind, _ = OURS[label]
    second_order = hasattr(kind, "curvature_due")
    optimizer = kind(params, lr=RATE, **({"every": 10**9} if second_order else {}))
    if second_order:
        optimizer.update_curvature(loss=sum((param * param).sum() for param in params) / 2)
    for param in params:
        param.grad = torch.full_like(param, 0.01)
    optimizer.step()
    return optimizer


def altered(optimizer: Any, name: str, value: Any) -> Callable[[], Any]:
    """A step with another setting; with nonfinite="ignore" it takes gradients as they are, as torch's own do."""
    group = optimizer.param_groups[0]

    def step() -> None:
        before, group[name] = group[name], value
        optimizer.step()
        group[name] = before

    return step


def fused(params: Params) -> Candidates:
    """Torch's own fused optimizers, and its way to clip gradients before one."""
    adamw = torch.optim.AdamW(params, lr=RATE, fused=True)
    sgd = torch.optim.SGD(params, lr=RATE, momentum=0.9, fused=True)

    def clipped() -> None:
        torch.nn.utils.clip_grad_norm_(params, BOUND)
        adamw.step()

    return {FUSED: adamw.step, FUSED_SGD: sgd.step, FUSED_CLIPPED: clipped}


def peers(params: Params) -> Candidates:
    """The same rules in other libraries, where those are installed, without their curvature."""
    found: dict[str, Callable[[], Any]] = {}
    for package, kind, _ in PEERS.values():
        if find_spec(package) is None:
            continue
        make = getattr(import_module(package), kind)
        if package == "pytorch_optimizer":
            optimizer = make(params, lr=RATE, update_period=10**9)
            optimizer.step(hessian=[torch.ones_like(param) for param in params])
        else:
            optimizer = make(params, lr=RATE)
        found[f"{package} {kind}"] = optimizer.step
    return found


def streams(params: Params, threads: int) -> Candidates:
    """Loops that move as many arrays as steps do and calculate next to nothing; copies of one array to another."""
    arrays = [[torch.ones_like(param.detach()) for param in params] for _ in range(4)]
    sizes = [param.numel() for param in params]

    def moving(reads: int, writes: int) -> Callable[[], Any]:
        sweep = stream(reads, writes)
        pointers = [array[place].data_ptr() for place in range(len(params)) for array in arrays[:reads]]
        rows, scalars = [0] * len(params), [sweep.program.scalars_from({})]
        return partial(moved, arrays, sweep.run, sizes, pointers, rows, scalars, threads)

    copies: Candidates = {
        FOREACH: lambda: torch._foreach_add_(arrays[0], arrays[1]),
        COPY: lambda: torch._foreach_copy_(arrays[2], arrays[3]),
    }
    if params[0].device.type != "cpu" or not kernels.available():
        return copies
    return {label: moving(*shape) for label, shape in STREAMS.items()} | copies


def moved(arrays: Any, run: Callable[..., None], *arguments: Any) -> None:
    """Run a stream; its arrays are an argument so that they live as long, because pointers alone keep nothing."""
    run(*arguments)


def sweeps(name: str) -> list[tuple[int, int]]:
    """How many arrays a step of a rule reads and writes, for each of its sweeps, with its default hyperparameters.

    >>> sweeps("sophia"), 4 * sum(map(sum, sweeps("apollo-l2")))     # bytes an entry in float32
    ([(4, 2)], 40)
    """
    rule = RULES[name]
    program = Program((rule.step,))
    scalars = program.scalars_from({**rule.defaults, "step": 1, "refreshes": 1})
    return traffic(program.graph, [scalar for scalar, value in scalars.items() if value == 0])


def bandwidth_rows(group: str, params: Params, times: Times, limit: float | None) -> Iterator[Row]:
    """Each step's share of the stream that reads and writes as many arrays, by the bytes that it cannot do without.

    Memory is slower where more is read than written; shares of the fastest stream are in the detail. A step of several
    sweeps has no other stream to compare with.
    """
    count = sum(param.numel() for param in params)
    sizes = {FOREACH: 12, COPY: 8, **{label: 4 * sum(shape) for label, shape in STREAMS.items()}}
    sizes = {label: size for label, size in sizes.items() if label in times.seconds}
    speeds = {label: size * count / times.median(label) / 1e9 for label, size in sizes.items()}
    best = max(speeds, key=lambda label: speeds[label])
    detail = ", ".join(f"{label} {speed:.1f}" for label, speed in speeds.items())
    yield Row(group, best, "", speeds[best], "GB/s", detail=detail)
    for label, (_, name) in OURS.items():
        shapes = sweeps(name)
        moved = 4 * sum(map(sum, shapes))
        own = next((stream for stream in speeds if [STREAMS.get(stream)] == shapes), best)
        shares = {
            stream: 100 * moved / sizes[stream] / times.ratio(label + UNCHECKED, stream) for stream in (own, best)
        }
        detail = f"{moved} bytes an entry; {shares[best]:.0f} % of {best}"
        yield Row(group, label + UNCHECKED, own, shares[own], "%", limit, at_least=True, detail=detail)
