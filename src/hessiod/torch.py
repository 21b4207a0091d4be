"""Optimizers for PyTorch."""

from hessiod.backends.registry import require

require("torch", extra="torch")

from hessiod.backends_torch.optimizers import SGD, AdamW, SophiaG, SophiaH  # noqa: E402

__all__ = ["SGD", "AdamW", "SophiaG", "SophiaH"]
