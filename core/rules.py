"""Every rule, by name. A new rule is a file beside this one and a line here; every backend then runs it."""

from __future__ import annotations

from hessiod.core.adahessian import ADAHESSIAN, ADAHESSIAN_POWER
from hessiod.core.adamw import ADAMW
from hessiod.core.apollo import APOLLOS
from hessiod.core.diagonal_newton import DIAGONAL_NEWTON, DIAGONAL_NEWTON_SQRT
from hessiod.core.kronecker.heavy_ball import HEAVY_BALL
from hessiod.core.rule import Rule
from hessiod.core.sgd import SGD, SGD_MOMENTUM, SGD_NESTEROV
from hessiod.core.sophia import SOPHIA, SOPHIA_WARM

_SECOND_ORDER = (
    SOPHIA,
    SOPHIA_WARM,
    ADAHESSIAN,
    ADAHESSIAN_POWER,
    *APOLLOS.values(),
    DIAGONAL_NEWTON,
    DIAGONAL_NEWTON_SQRT,
)
_FIRST_ORDER = (ADAMW, SGD, SGD_MOMENTUM, SGD_NESTEROV, HEAVY_BALL)

RULES: dict[str, Rule] = {rule.name: rule for rule in _SECOND_ORDER + _FIRST_ORDER}
