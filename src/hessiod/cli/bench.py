"""``hessiod bench``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.registry import require
from hessiod.bench.lists import DEFAULT, LISTS
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.cli.files import make_folder_of
from hessiod.core.errors import InvalidArgument

BACKENDS = ("torch", "mindspore")
SECTIONS = ("step", "memory", "cold", "curvature", "training", "kronecker")
"""What can be measured: in the module ``hessiod.bench.<backend>_<section>`` where there is one, which has a function
``rows(settings)``."""


def bench(
    backend: Annotated[str, typer.Option(help="torch or mindspore")] = "torch",
    parameters: Annotated[
        list[str] | None,
        typer.Option("--list", help=f"{', '.join(LISTS)}; repeat for several (default: {', '.join(DEFAULT)})"),
    ] = None,
    threads: Annotated[int, typer.Option(help="threads of every candidate", min=1)] = 1,
    device: Annotated[str, typer.Option(help="for steps in PyTorch: cpu or cuda")] = "cpu",
    section: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(SECTIONS)}; repeat for several (default: all)")
    ] = None,
    rounds: Annotated[int, typer.Option(help="interleaved rounds, of which medians are taken", min=1)] = 15,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all figures to a file")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a bar chart, a PNG")] = None,
) -> None:
    """Time a step of each rule against the frameworks' own optimizers, other libraries and the memory's speed.

    All candidates take turns in one process. Trust ratios: they are medians over rounds, within a round.
    """
    for option, names, known in (
        ("backend", [backend], BACKENDS),
        ("list", parameters or [], tuple(LISTS)),
        ("section", section or [], sections_of(backend) if backend in BACKENDS else SECTIONS),
    ):
        for name in names:
            if name not in known:
                raise InvalidArgument(f"{option}: found {name!r}, expected one of {', '.join(known)}")
    if device != "cpu" and (backend != "torch" or section != ["step"]):
        raise InvalidArgument(
            f"device: found {device!r}, expected cpu; other devices are for --backend torch --section step alone"
        )
    for option, file in (("json", json_file), ("plot", plot)):
        if file is not None:
            make_folder_of(file, option)
    if plot is not None:
        require("matplotlib", extra="plots")
    require(backend, extra=backend)
    from hessiod.bench import report

    settings = Settings(tuple(parameters or DEFAULT), rounds, threads, device)
    found: list[Row] = []
    report.show(kept(measured(backend, section or sections_of(backend), settings), found), Console())
    document = {"header": report.header(), "rows": [row.document() for row in found]}
    if json_file is not None:
        write_atomically(json_file, json.dumps(document, indent=1).encode())
    if plot is not None:
        write_atomically(plot, report.picture(found))


def measured(backend: str, sections: Sequence[str], settings: Settings) -> Iterator[Row]:
    """The rows of some sections, as they are found."""
    for section in sections:
        yield from import_module(f"hessiod.bench.{backend}_{section}").rows(settings)


def sections_of(backend: str) -> list[str]:
    """What can be measured on a backend."""
    return [section for section in SECTIONS if find_spec(f"hessiod.bench.{backend}_{section}")]


def kept(rows: Iterable[Row], found: list[Row]) -> Iterator[Row]:
    """The rows as they come, and a list of them for later."""
    for row in rows:
        found.append(row)
        yield row
