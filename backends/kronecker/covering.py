"""Whether a Kronecker method covers anything of a model."""

from __future__ import annotations

from typing import Any

from hessiod.core.errors import InvalidArgument


def check_covered(found: Any, argument: str, model: Any, method: str, kinds: str) -> None:
    """Raise :class:`InvalidArgument` if ``found`` has no ``layers``; its ``reasons`` say why.

    ``argument`` is what the user calls the model, ``kinds`` names the layers that the framework's methods cover.
    """
    if not found.layers:
        reasons = ", ".join(sorted(set(found.reasons.values()))) or "it has no trained parameters"
        raise InvalidArgument(
            f"{argument}: found {type(model).__name__} with no layer that {method} covers ({reasons}), "
            f"expected at least one {kinds} or normalisation layer; use AdamW"
        )
