"""What is traced in the place of operators whose derivatives MindSpore has wrong, or slow, or lacks."""

from hessiod.backends_mindspore.derivatives.cures.registry import CALLED, DERIVATIVES, FASTER, FUNCTIONS, OPERATORS

__all__ = ["CALLED", "DERIVATIVES", "FASTER", "FUNCTIONS", "OPERATORS"]
