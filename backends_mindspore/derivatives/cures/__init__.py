"""What is traced in the place of operators whose derivatives MindSpore has wrong or lacks."""

from hessiod.backends_mindspore.derivatives.cures.registry import CLASSES, DERIVATIVES, FUNCTIONS, OPERATORS

__all__ = ["CLASSES", "DERIVATIVES", "FUNCTIONS", "OPERATORS"]
