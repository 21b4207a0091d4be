"""Rows as tables on the terminal, as JSON, and as a picture."""

from __future__ import annotations

import io
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from hessiod.backends.kernels.compiler import processor
from hessiod.bench.row import Row

PACKAGES = ("hessiod", "torch", "mindspore", "numpy", "pytorch-optimizer", "torch-optimizer")


def header() -> dict[str, Any]:
    """What figures depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    name = next((part for part in processor().split("model name\t: ")[1:2]), platform.processor()).split(" flags")[0]
    return {"processor": name, "python": platform.python_version(), "versions": versions}


def show(rows: Iterable[Row], console: Console) -> None:
    """Print a table for each group of rows as soon as it is complete."""
    for group, members in groupby(rows, key=lambda row: row.group):
        table = Table(title=group, title_justify="left")
        for column in ("what", "against"):
            table.add_column(column)
        for column in ("figure", "aim"):
            table.add_column(column, justify="right")
        table.add_column("")
        table.add_column("detail")
        for row in members:
            sign = ">=" if row.at_least else "<="
            aim = "" if row.limit is None else f"{sign} {row.limit:g}"
            verdict = {True: "met", False: "missed", None: ""}[row.met]
            table.add_row(row.name, row.peer, f"{row.value:.3g} {row.unit}", aim, verdict, row.detail)
        console.print(table)


def picture(rows: Sequence[Row]) -> bytes:
    """A PNG with a bar chart for each group that has ratios, of all figures by unit if none has; needs matplotlib."""
    from matplotlib.figure import Figure

    chosen = [row for row in rows if row.unit == "x"] or rows
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in chosen:
        groups.setdefault((row.group, row.unit), []).append(row)
    figure = Figure(figsize=(9, 1 + 0.28 * sum(len(members) + 3 for members in groups.values())), layout="constrained")
    heights = [len(members) + 1 for members in groups.values()]
    axes = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, ((group, unit), members) in zip(axes, groups.items(), strict=True):
        ratios = unit == "x"
        names = [f"{row.name} / {row.peer}" if ratios else row.name for row in members]
        colours = ["tab:green" if row.met else "tab:red" if row.met is False else "tab:blue" for row in members]
        axis.barh(names, [row.value for row in members], color=colours)
        for place, row in enumerate(members):
            if row.limit is not None:
                axis.plot([row.limit] * 2, [place - 0.45, place + 0.45], color="black")
        if ratios:
            axis.axvline(1.0, color="grey", lw=0.8)
        axis.invert_yaxis()
        axis.set_title(group if ratios else f"{group}, {unit}", loc="left", fontsize=9)
        axis.tick_params(labelsize=7)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
