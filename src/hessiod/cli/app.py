"""The commands together, and how errors end: ``hessiod backends``, ``hessiod train``, ``hessiod conformance``.

Every error that hessiod raises on purpose is one line on standard error and exit status 2.
"""

from __future__ import annotations

import os
import sys

import typer

from hessiod.cli.backends import backends
from hessiod.cli.bench import bench
from hessiod.cli.certify import certify
from hessiod.cli.checkpoint import checkpoint
from hessiod.cli.conformance import conformance
from hessiod.cli.export import export
from hessiod.cli.train import train
from hessiod.core.errors import HessiodError

app = typer.Typer(
    help="Second-order optimizers that behave the same on PyTorch and on MindSpore.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (backends, bench, certify, export, train):
    app.command()(command)
app.add_typer(checkpoint, name="checkpoint", no_args_is_help=True)
app.add_typer(conformance, name="conformance")


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
