"""What is traced in the place of operators whose derivatives MindSpore has wrong or lacks."""

from hessiod.backends_mindspore.derivatives.cures.registry import DERIVATIVES, OPERATORS

__all__ = ["DERIVATIVES", "OPERATORS"]
