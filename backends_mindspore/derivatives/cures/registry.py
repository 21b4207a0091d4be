"""Every cure, by what it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hessiod.backends_mindspore.derivatives.cures import second

DERIVATIVES: dict[str, Callable[..., Any]] = dict(second.DERIVATIVES)
OPERATORS: dict[str, Callable[[Any], Any]] = {}
CLASSES: dict[type, Callable[..., Any]] = {}
FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
