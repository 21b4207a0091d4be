"""What level 1 calls: kernels, and calls of them with their arrays and hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hessiod.conformance.formats import Format
from hessiod.core.rule import Kernel


@dataclass(frozen=True)
class Subject:
    """A kernel under test with its hyperparameters' defaults; ``stepped`` if optimizers call it in their steps."""

    name: str
    kernel: Kernel
    defaults: Mapping[str, float] = field(default_factory=dict, compare=False)
    stepped: bool = True

    @property
    def rule(self) -> str:
        """The rule or estimator that the kernel belongs to."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class Example:
    """A call of a kernel: arrays for its operands, hyperparameters, and where they come from, in words.

    ``format`` is that of the parameter; the arrays have its container's dtype. ``strided`` arrays are to be taken from
    wider ones, with steps between their entries. The entries of a call with a ``base`` are that call's, over and over.
    """

    subject: Subject
    format: Format
    arrays: tuple[np.ndarray, ...]
    values: Mapping[str, float]
    where: str
    strided: bool = False
    base: Example | None = None

    @property
    def operands(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return dict(zip(self.subject.kernel.operands, self.arrays, strict=True))

    @property
    def scalars(self) -> dict[str, float]:
        """The kernel's scalars."""
        return dict(self.subject.kernel.scalars_from(self.values))

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Those that the kernel's scalars are made of."""
        return {name: self.values[name] for name in self.subject.kernel.hyperparameters}
