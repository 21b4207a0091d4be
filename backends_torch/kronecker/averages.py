"""Running averages of the factors of all layers, worked out together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hessiod.backends import kernels
from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import Arrays
from hessiod.core.kronecker import factors
from hessiod.core.rule import Kernel


def averaged(xp: Any, factor: Any, statistic: Any, *, keep: float, take: float) -> tuple[Any]:
    """A running average, which takes the statistic's place."""
    return (factors.average(xp, factor, statistic, keep=keep, take=take),)


def as_they_are(*, keep: float, take: float) -> dict[str, float]:
    """The scalars of :func:`~hessiod.core.kronecker.factors.average_scalars`."""
    return {"keep": keep, "take": take}


KERNEL = Kernel(averaged, as_they_are, ("factor", "statistic"), ("statistic",))


class Averages:
    """Averages that were put off, and are worked out by one call of a compiled kernel where there is one."""

    def __init__(self) -> None:
        self.factors, self.statistics, self.scalars = list[Tensor](), list[Tensor](), list[dict[str, float]]()

    def put_off(self, xp: Any, factor: Tensor, statistic: Tensor, **scalars: float) -> Tensor:
        """The statistic's tensor, which holds :func:`~hessiod.core.kronecker.factors.average` after :meth:`finish`."""
        self.factors.append(factor)
        self.statistics.append(statistic)
        self.scalars.append(scalars)
        return statistic

    def finish(self) -> None:
        """Work them out."""
        earlier, new = Arrays(self.factors), Arrays(self.statistics)
        sweep = None
        if self.factors and kernels.available() and of_one_kind(earlier, new):
            dtype = new.dtypes[0]
            sweep = kernels.sweep_for((KERNEL,), dtype, dtype, dtype)
        if sweep is None:
            for factor, statistic, own in zip(self.factors, self.statistics, self.scalars, strict=True):
                statistic.copy_(factors.average(xp, factor, statistic, **own))
            return
        pointers = [place for pair in zip(earlier.addresses, new.addresses, strict=True) for place in pair]
        different = list({tuple(own.items()): own for own in self.scalars}.values())
        rows = list(map(different.index, self.scalars))
        scalars = list(map(sweep.program.scalars_from, different))
        sweep.run(new.sizes, pointers, rows, scalars, torch.get_num_threads())


def of_one_kind(earlier: Arrays, new: Arrays) -> bool:
    """Whether a compiled kernel takes all of these together."""
    both = (earlier, new)
    plain = all(arrays.plain and all(arrays.contiguous) for arrays in both)
    return plain and len({dtype for arrays in both for dtype in arrays.layouts[2]}) == 1
