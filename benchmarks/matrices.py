"""Matrix products of the Kronecker methods by compiled code, beside torch's: microseconds of one thread.

    python benchmarks/matrices.py

Both are called as the optimizer calls them, in turn; times are processor time, medians of 15 rounds. Errors are the
Frobenius norm of the difference to the same in float64, in units of the result's.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from hessiod.backends import kernels
from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.kronecker import matrices
from hessiod.bench.timing import clock_for, interleaved
from hessiod.core.kronecker import factors, inverses
from hessiod.core.kronecker.precondition import precondition

Way = Callable[[], tuple[Tensor, ...]]
Task = Callable[[torch.dtype], tuple[Way, Way]]


def drawn(*shape: int) -> Tensor:
    """The same numbers in every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def positive(size: int) -> Tensor:
    """A second moment of twice as many rows as it has columns."""
    rows = drawn(2 * size, size)
    return rows.mT @ rows / len(rows)


def moment(rows: int, size: int) -> Task:
    """The second moment of rows that a layer saw."""

    def pair(dtype):
        given = drawn(rows, size).to(dtype)
        return lambda: (factors.second_moment(xp, given),), lambda: (matrices.second_moment(given),)

    return pair


def inverse(size: int) -> Task:
    """A factor's damped inverse."""

    def pair(dtype):
        given, damping = positive(size).to(dtype), torch.full((1, 1), 0.1, dtype=dtype)
        return (
            lambda: (inverses.cholesky_inverse(xp, given, damping),),
            lambda: (matrices.cholesky_inverse(xp, given, damping),),
        )

    return pair


def directions(out: int, size: int) -> Task:
    """A layer's natural gradient, with a bias, and its product with the gradient."""

    def pair(dtype):
        weight, bias = drawn(out, size).to(dtype), drawn(out).to(dtype)
        a, g = (positive(number).to(dtype) for number in (size + 1, out))
        layer = SimpleNamespace(shape=(out, size + 1), bias=True, slots=(0, 1))
        together = matrices.Together()

        def by_torch():
            grad = torch.cat([weight, bias[:, None]], dim=1)
            found = precondition(xp, grad, (a,), (g,))
            torch.sum(found * grad).item()
            return found[:, :-1], found[:, -1]

        def compiled():
            return tuple(together([layer], [((a,), (g,))], [weight, bias])[0])

        return by_torch, compiled

    return pair


TASKS = {
    "second moment, 256 rows of 128": moment(256, 128),
    "second moment, 4,096 rows of 1,024": moment(4096, 1024),
    "directions of a layer of 128 x 64 with bias": directions(128, 64),
    "directions of a layer of 1,024 x 1,024 with bias": directions(1024, 1024),
    "inverse, d = 129": inverse(129),
    "inverse, d = 1,024": inverse(1024),
}


def error(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """The relative Frobenius norm of the difference."""
    off = sum(float((a - b).square().sum()) for a, b in zip(found, exact, strict=True))
    return (off / sum(float(b.square().sum()) for b in exact)) ** 0.5


def main() -> None:
    """Print the table in Markdown."""
    torch.set_num_threads(1)
    if not kernels.matrices_available():
        raise SystemExit("compiled matrix products are not in use here: no compiler, or vectors below 32 bytes")
    print("| | torch, us | here, us | torch, error | here, error |\n|---|---|---|---|---|")
    for name, task in TASKS.items():
        torchs, ours = task(torch.float32)
        exact = task(torch.float64)[0]()
        times = interleaved({"torch": torchs, "here": ours}, clock=clock_for(1), calls=1 if "1,024" in name else 50)
        cells = [f"{1e6 * times.median(way):,.0f}" for way in ("torch", "here")]
        cells += [f"{error(way(), exact):.1e}" for way in (torchs, ours)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
