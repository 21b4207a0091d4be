"""A certification table as Markdown, and the page of the documentation that shows the shipped ones."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hessiod.backends.certification.table import CURED, REFUSED, RIGHT, WRONG, read, shipped
from hessiod.backends.checkpoint import write_atomically
from hessiod.conformance.certify.run import as_json, file_name
from hessiod.conformance.certify.verdicts import ABSENT, VERDICTS

PAGE = """# Certified operators

For each version of a framework: which second derivatives are right of themselves, which through the cures that
hessiod's engine applies, and which it refuses. `hessiod certify --backend mindspore --out DIR` measures an installation
anew; with `HESSIOD_CERTIFICATION=DIR` the engines read the table that it wrote. This page is made from the shipped
tables by `python -m hessiod.conformance.certify.report docs/certification.md`.

A case is an operator or a layer at one point, in float32, inside `sum(c * (y + y * y / 2))` for its output `y`. Its
gradient and the product of its Hessian with a vector are compared with golden values in float64, on which jax.numpy
(from the definitions) and PyTorch (its own operators) agree to 1e-9. Errors are norms relative to the norm of the
truth: of the gradient, then of the product. `case__way` is another way in which users write a case.

- **right**: the framework's own traced second derivative is right.
- **cured**: right through the engine's cures, and only so.
- **refused**: no number comes out, but an error.
- **wrong**: a number comes out that is off. There must be none.
- **absent**: the framework has no kernel for the operator on this device; not even its gradient can be computed.

A version that no table is about gives no good news: its operators are uncertified, except that what the nearest table
refuses stays refused. Only CPUs were measured; nothing here says anything about Ascend or CUDA devices.

"""


def as_markdown(document: dict[str, Any], depth: int = 1) -> str:
    """A table for people: counts, silent errors, and every case by family."""
    header, counts = document["header"], document["counts"]
    shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    marks = "#" * depth
    parts = [
        f"{marks} {header['framework']} {header['version']} on {header['device']}",
        f"**{len(document['cases'])} cases: {shown}.** {silence(document)}",
    ]
    for family in dict.fromkeys(case["family"] for case in document["cases"]):
        rows = [case for case in document["cases"] if case["family"] == family]
        parts += [f"{marks}# {family.capitalize()}", "\n".join(table_of(rows))]
    return "\n\n".join(parts) + "\n"


def silence(document: dict[str, Any]) -> str:
    """How many numbers are silently wrong without hessiod."""
    said = f"Without hessiod, {document['counts']['silent']} of them give a wrong number without a word"
    eager = counts_eager(document)
    return f"{said}." if eager is None else f"{said} when traced, and {eager} when run eagerly."


def counts_eager(document: dict[str, Any]) -> int | None:
    """How many cases are silently wrong eagerly; None where that was not measured."""
    found = [case["routes"]["eager"] for case in document["cases"] if "eager" in case["routes"]]
    return sum(off(route, document["header"]["tolerance"]) for route in found) if found else None


def off(route: dict[str, Any], tolerance: dict[str, float]) -> bool:
    """Whether a route gave a number that is not the derivative."""
    return any(
        route[order] is not None and not (isinstance(route[order], float) and route[order] <= tolerance[order])
        for order in ("first", "second")
    )


def table_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The lines of a family's table."""
    lines = ["| case | verdict | framework's own | engine's | why |", "|---|---|---|---|---|"]
    for case in rows:
        engines = [route for name, route in case["routes"].items() if name in ("engine", "graph")]
        own, ours = figure(case["routes"]["plain"]), max((figure(route) for route in engines), key=len, default="")
        verdict = f"**{case['verdict']}**" if case["verdict"] in (WRONG, REFUSED) else case["verdict"]
        why = case["why"].replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {case['name']} | {verdict} | {own} | {ours} | {why} |")
    return lines


def figure(route: dict[str, Any]) -> str:
    """The errors of both derivatives."""
    if route["second"] is None:
        return "raises" if route["first"] is None else f"{route['first']}, raises"
    return f"{route['first']}, {route['second']}"


def write_table(document: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``<framework>-<version>.json`` and ``.md``."""
    path = folder / file_name(document)
    write_atomically(path, as_json(document).encode())
    write_atomically(path.with_suffix(path.suffix.replace("json", "md")), as_markdown(document).encode())
    return [path, path.with_suffix(".md")]


def page() -> str:
    """``docs/certification.md``, from the shipped tables."""
    documents = [read(path).document for path in shipped()]
    return PAGE + "\n".join(as_markdown(dict(document), depth=2) for document in documents if document)


def main() -> None:
    """Write the page."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/certification.md")
    write_atomically(path, page().encode())


if __name__ == "__main__":
    main()

__all__ = ["ABSENT", "CURED", "RIGHT", "as_markdown", "page", "write_table"]
