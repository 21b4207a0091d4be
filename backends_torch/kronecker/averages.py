"""Running averages of the factors of all layers, worked out together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import Arrays, same
from hessiod.backends_torch.kronecker.sweeps import swept
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
    """Averages that were put off, and are worked out by one call of a compiled kernel where there is one.

    ``known`` are the step's statistics, which were looked at before.
    """

    def __init__(self, known: Arrays) -> None:
        self.known = known
        self.factors, self.statistics, self.scalars = list[Tensor](), list[Tensor](), list[dict[str, float]]()

    def put_off(self, xp: Any, factor: Tensor, statistic: Tensor, **scalars: float) -> Tensor:
        """The statistic's tensor, which holds :func:`~hessiod.core.kronecker.factors.average` after :meth:`finish`."""
        self.factors.append(factor)
        self.statistics.append(statistic)
        self.scalars.append(scalars)
        return statistic

    def finish(self) -> None:
        """Work them out."""
        new = self.known if same(self.known.tensors, self.statistics) else Arrays(self.statistics)
        if swept(KERNEL, [Arrays(self.factors), new], self.scalars):
            return
        for factor, statistic, own in zip(self.factors, self.statistics, self.scalars, strict=True):
            statistic.copy_(factors.average(xp, factor, statistic, **own))
