"""``hessiod backends``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from hessiod.backends.registry import listings


def backends() -> None:
    """List the backends: versions, devices and capabilities of the installed ones, what to install for the others."""
    table = Table("backend", "versions", "devices", "dtypes", "kernels run", "optimizers")
    unavailable = []
    for listing in listings():
        backend = listing.backend
        if backend is None:
            unavailable.append(f"{listing.name}: {listing.reason}")
            continue
        table.add_row(
            backend.name,
            ", ".join(f"{name} {version}" for name, version in backend.versions().items()),
            ", ".join(backend.devices()),
            ", ".join(backend.dtypes),
            ", ".join(route.name for route in backend.routes),
            ", ".join(backend.optimizers) or "none: no autodiff",
        )
    console = Console()
    console.print(table)
    for line in unavailable:
        console.print(f"not available: {line}", markup=False, highlight=False, soft_wrap=True)
