"""The tables that ``hessiod certify`` writes, as the engines look operators up in them.

A table is about one version of a framework on one device. For a version that no table is about, nothing that a nearby
table praises counts, because a number that was right is not evidence about other code; what it refuses stays refused,
because silent errors have outlived releases. So an unknown version gives *refused* or *uncertified*, and one warning.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hessiod.core.errors import InvalidArgument

RIGHT, CURED, REFUSED, WRONG, UNCERTIFIED = "right", "cured", "refused", "wrong", "uncertified"
"""Right: the framework's own derivatives are right. Cured: right through the engine's cures, and only so. Refused: the
engine raises an error that names the operator. Wrong: a number comes out and is off; no shipped table has one.
Uncertified: nobody measured."""

TABLES = Path(__file__).with_name("tables")
FOLDER = "HESSIOD_CERTIFICATION"
NOTHING = "none"
"""An environment variable: a folder whose tables, written by ``hessiod certify``, come before the shipped ones; or
``none`` for no tables at all."""

SCHEMA = "hessiod-certification-1"


class UncertifiedVersion(UserWarning):
    """No table is about the installed version of a framework."""


@dataclass(frozen=True)
class Operator:
    """What a table says about an operator.

    ``first`` and ``second`` are verdicts on the first and second derivative, ``cases`` the names of the cases that they
    were measured on, and ``why`` says what is wrong, or why it fails, where the verdict is neither right nor cured.
    """

    name: str
    first: str
    second: str
    cases: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Table:
    """Operators of a framework by the names that its graphs give them.

    MindSpore's operators are named like its primitives (``LayerNorm``), PyTorch's like its autograd nodes
    (``GeluBackward0``).

    >>> table = Table("mindspore", "2.10.0", "cpu", {"LayerNorm": Operator("LayerNorm", "right", "cured")})
    >>> table.verdict("LayerNorm"), table.verdict("LayerNorm", order=1), table.verdict("Unheard")
    ('cured', 'right', 'uncertified')
    """

    framework: str
    version: str
    device: str
    operators: Mapping[str, Operator]
    document: Mapping[str, Any] | None = None

    def operator(self, name: str) -> Operator:
        """What is known about an operator; uncertified where nothing is."""
        return self.operators.get(name) or Operator(name, UNCERTIFIED, UNCERTIFIED)

    def verdict(self, name: str, order: int = 2) -> str:
        """The verdict on an operator's derivative of order 1 or 2."""
        operator = self.operator(name)
        return operator.first if order == 1 else operator.second

    def why(self, name: str) -> str:
        """What is wrong with an operator, or why it fails; empty where it is right or unknown."""
        return self.operator(name).why


def public(version: str) -> str:
    """A version without its local part: 2.13.0 for 2.13.0+cpu."""
    return version.partition("+")[0]


def shipped(folder: Path = TABLES) -> list[Path]:
    """The tables' files, by name."""
    return sorted(folder.glob("*.json"))


@cache
def read(path: Path) -> Table:
    """The table in a file; raise :class:`InvalidArgument` for anything else."""
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise InvalidArgument(
                f"table: {str(path)!r} has the schema {document['schema']!r}, expected {SCHEMA!r}; "
                "make it anew with `hessiod certify`"
            )
        operators = {
            name: Operator(name, row["first"], row["second"], tuple(row["cases"]), row["why"])
            for name, row in document["operators"].items()
        }
        header = document["header"]
        return Table(header["framework"], header["version"], header["device"], operators, document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(
            f"table: cannot read {str(path)!r} ({error!r}); make it anew with `hessiod certify`"
        ) from error


def distance(one: str, other: str) -> tuple[int, ...]:
    """How far apart two versions are: major, minor, patch."""
    pairs = zip(numbers(one), numbers(other), strict=True)
    return tuple(abs(a - b) for a, b in pairs)


def numbers(version: str) -> tuple[int, int, int]:
    """The first three numbers of a version."""
    found = [int(digits) for digits in re.findall(r"\d+", public(version))[:3]]
    major, minor, patch = [*found, 0, 0, 0][:3]
    return major, minor, patch


def load(framework: str, version: str, device: str = "cpu", folder: Path | None = None) -> Table:
    """The table about this version and device, or, with a warning, what the nearest one refuses.

    Tables are looked for in ``folder``, or else in the folder that the environment variable ``HESSIOD_CERTIFICATION``
    names and then among the shipped ones.
    """
    own = os.environ.get(FOLDER)
    if folder:
        folders: tuple[Path, ...] = (folder,)
    elif own:
        folders = () if own == NOTHING else (Path(own), TABLES)
    else:
        folders = (TABLES,)
    return found_in(folders, framework, public(version), device)


@cache
def found_in(folders: tuple[Path, ...], framework: str, version: str, device: str) -> Table:
    """The first table that fits, or the nearest one's doubts."""
    tables = [table for place in folders for table in map(read, shipped(place)) if table.framework == framework]
    for table in tables:
        if (table.version, table.device) == (version, device):
            return table
    about = f"no certification table for {framework} {version} on {device}: operators are uncertified"
    cure = f"`hessiod certify --backend {framework}` says what this version has right"
    if not tables:
        warnings.warn(f"{about}. {cure}", UncertifiedVersion, stacklevel=3)
        return Table(framework, version, device, {})
    nearest = min(tables, key=lambda table: (distance(version, table.version), table.device))
    kept = f"those that the table for {nearest.version} on {nearest.device} refuses"
    warnings.warn(f"{about}, but for {kept}. {cure}", UncertifiedVersion, stacklevel=3)
    return Table(framework, version, device, doubts(nearest))


def doubts(table: Table) -> dict[str, Operator]:
    """Only what a table refuses: the rest is uncertified elsewhere."""

    def keep(verdict: str) -> str:
        return REFUSED if verdict in (REFUSED, WRONG) else UNCERTIFIED

    kept = {}
    for name, operator in table.operators.items():
        first, second = keep(operator.first), keep(operator.second)
        if REFUSED in (first, second):
            kept[name] = Operator(name, first, second, operator.cases, f"{operator.why} (in {table.version})")
    return kept
