"""Every rule, by name. A new rule is a file beside this one and a line here; every backend then runs it."""

from __future__ import annotations

from hessiod.core.adamw import ADAMW
from hessiod.core.rule import Rule
from hessiod.core.sgd import SGD, SGD_MOMENTUM, SGD_NESTEROV
from hessiod.core.sophia import SOPHIA

RULES: dict[str, Rule] = {rule.name: rule for rule in (SOPHIA, ADAMW, SGD, SGD_MOMENTUM, SGD_NESTEROV)}
