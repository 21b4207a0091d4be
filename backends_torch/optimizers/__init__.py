"""The optimizers that users import: each is a rule, a signature and a docstring."""

from __future__ import annotations

from hessiod.backends_torch.adapter import RuleOptimizer
from hessiod.backends_torch.kronecker.kfac import KFAC
from hessiod.backends_torch.kronecker.mixup import RunningMixup
from hessiod.backends_torch.kronecker.spngd import SPNGD
from hessiod.backends_torch.kronecker.thor import THOR
from hessiod.backends_torch.optimizers.adahessian import AdaHessian
from hessiod.backends_torch.optimizers.apollo import Apollo, ApolloW
from hessiod.backends_torch.optimizers.diagonal_newton import DiagonalNewton
from hessiod.backends_torch.optimizers.first_order import SGD, AdamW
from hessiod.backends_torch.optimizers.sophia import Sophia, SophiaH
from hessiod.backends_torch.optimizers.sophia_g import SophiaG

__all__ = [
    "AdaHessian",
    "AdamW",
    "Apollo",
    "ApolloW",
    "DiagonalNewton",
    "KFAC",
    "RunningMixup",
    "SGD",
    "SPNGD",
    "Sophia",
    "SophiaG",
    "SophiaH",
    "THOR",
]

OPTIMIZERS: dict[str, type[RuleOptimizer]] = {
    "sophia-g": SophiaG,
    "sophia-h": SophiaH,
    "adahessian": AdaHessian,
    "apollo": Apollo,
    "apollow": ApolloW,
    "diagonal-newton": DiagonalNewton,
    "adamw": AdamW,
    "sgd": SGD,
    "kfac": KFAC,
    "spngd": SPNGD,
    "thor": THOR,
}
"""Classes by their names on the command line."""
