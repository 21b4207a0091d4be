"""What is traced in the place of operators whose derivatives MindSpore has wrong or lacks."""

from hessiod.backends_mindspore.derivatives.cures.registry import CALLED, DERIVATIVES, FUNCTIONS, OPERATORS

__all__ = ["CALLED", "DERIVATIVES", "FUNCTIONS", "OPERATORS"]
