"""One measured figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """What was measured, against what, and what was aimed at.

    ``group`` is the table that the row belongs to ("step, GPT-2-like, 1 thread"). ``value`` is in ``unit``: "x" for a
    ratio to ``peer``, "ms", "s", "GB/s", "%", "MB". ``limit`` is the aim, an upper bound unless ``at_least`` is set;
    None where there is none. ``detail`` holds what a reader needs to judge the figure, such as the times themselves.
    """

    group: str
    name: str
    peer: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim was reached; None where there is none.

        >>> Row("step", "sophia", "AdamW(fused)", 0.86, "x", limit=0.92).met
        True
        >>> Row("step", "sophia", "copy", 0.84, "%", limit=88, at_least=True).met
        False
        """
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def document(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        return {**asdict(self), "met": self.met}
