"""Optimizers for PyTorch."""

from hessiod.backends.registry import require

require("torch", extra="torch")

from hessiod.backends_torch.optimizers import (  # noqa: E402
    SGD,
    AdaHessian,
    AdamW,
    Apollo,
    ApolloW,
    DiagonalNewton,
    Sophia,
    SophiaG,
    SophiaH,
)

__all__ = ["SGD", "AdaHessian", "AdamW", "Apollo", "ApolloW", "DiagonalNewton", "Sophia", "SophiaG", "SophiaH"]
