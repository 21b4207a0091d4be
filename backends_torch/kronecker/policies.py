"""The policies of :mod:`hessiod.backends.kronecker.policies` on torch's tensors."""

from __future__ import annotations

from hessiod.backends.kronecker import policies
from hessiod.backends_torch import namespace as xp


class Fixed(policies.Fixed):
    """K-FAC's."""

    def __init__(self) -> None:
        super().__init__(xp)


class Stale(policies.Stale):
    """SP-NGD's."""

    def __init__(self) -> None:
        super().__init__(xp)


class Trace(policies.Trace):
    """THOR's."""

    def __init__(self) -> None:
        super().__init__(xp)
