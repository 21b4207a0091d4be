"""``hessiod backends``: from the backends' cards, or with ``--devices`` from the backends themselves."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hessiod.backends.card import Card
from hessiod.backends.registry import cards, listings

HINT = "Nothing was loaded. hessiod backends --devices imports the frameworks and asks them for their devices."


def backends(
    devices: Annotated[bool, typer.Option(help="import each framework, which takes seconds, and ask it")] = False,
) -> None:
    """List the backends: versions and capabilities of the installed ones, what to install for the others."""
    table = Table("backend", "versions", *["devices"] * devices, "dtypes", "kernels run", "optimizers")
    unavailable = []
    for listing in listings() if devices else cards():
        found = listing.backend
        if found is None:
            unavailable.append(f"{listing.name}: {listing.reason}")
            continue
        asked = [] if isinstance(found, Card) or not devices else [", ".join(found.devices())]
        table.add_row(
            found.name,
            ", ".join(f"{name} {version}" for name, version in found.versions().items()),
            *asked,
            ", ".join(found.dtypes),
            ", ".join(route.name for route in found.routes),
            ", ".join(found.optimizers) or "none: no autodiff",
        )
    console = Console()
    console.print(table)
    for line in [f"not available: {line}" for line in unavailable] + [HINT] * (not devices):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
