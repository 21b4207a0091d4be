"""The commands together, and how errors end: ``hessiod backends``, ``hessiod train``, ``hessiod conformance``.

Every error that hessiod raises on purpose is one line on standard error and exit status 2.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from hessiod.core.errors import HessiodError

COMMANDS = {
    "backends": "List the backends: versions and capabilities of the installed ones, what to install for the others.",
    "bench": "Time a step of each rule against the frameworks' own optimizers, other libraries and the memory's speed.",
    "certify": "Certify second derivatives: which operators are right, cured, or refused on this installation.",
    "export": "Write a rule's kernels as ONNX functions, with a model that calls each: a specification that runs.",
    "train": "Train a small GPT on the bytes of a text; the same numbers on every framework.",
    "checkpoint": "Look into checkpoints, verify them, pair them with a model, convert them.",
    "conformance": "Test backends: kernels in ULP against the published formulas, training runs against golden losses.",
}
"""Each command, the object of its name in the module ``hessiod.cli.<name>``, and the first line of its help."""


class Commands(TyperGroup):
    """Imports a command's module when the command is called: ``hessiod --help`` needs none of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments begin with, and the rest of them."""
        if args[0] in COMMANDS:
            self.add_command(loaded(args[0]), args[0])
        return super().resolve_command(ctx, args)


def loaded(name: str) -> Any:
    """A command from its module."""
    found = getattr(import_module(f"hessiod.cli.{name}"), name)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False)
        found.command()(function)
    return typer.main.get_command(found)


def not_loaded() -> None:
    """Stands in a command's place until it is called."""


app = typer.Typer(
    cls=Commands,
    help="Second-order optimizers that behave the same on PyTorch and on MindSpore.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command, summary in COMMANDS.items():
    app.command(command, help=summary)(not_loaded)


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's warnings drown everything else; must be set before its import
    try:
        app()
    except HessiodError as error:
        print(f"hessiod: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("hessiod: interrupted", file=sys.stderr)
        sys.exit(130)
