"""The optimizers that users import: each is a rule, a signature and a docstring."""

from __future__ import annotations

from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.backends_mindspore.kronecker.kfac import KFAC
from hessiod.backends_mindspore.kronecker.spngd import SPNGD
from hessiod.backends_mindspore.kronecker.thor import THOR
from hessiod.backends_mindspore.optimizers.adahessian import AdaHessian
from hessiod.backends_mindspore.optimizers.apollo import Apollo, ApolloW
from hessiod.backends_mindspore.optimizers.diagonal_newton import DiagonalNewton
from hessiod.backends_mindspore.optimizers.first_order import SGD, AdamW
from hessiod.backends_mindspore.optimizers.sophia import Sophia, SophiaG, SophiaH

__all__ = [
    "KFAC",
    "SGD",
    "SPNGD",
    "THOR",
    "AdaHessian",
    "AdamW",
    "Apollo",
    "ApolloW",
    "DiagonalNewton",
    "Sophia",
    "SophiaG",
    "SophiaH",
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
