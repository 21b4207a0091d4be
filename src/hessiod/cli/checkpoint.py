"""``hessiod checkpoint``: look into files, verify them, pair them with a model, convert them."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hessiod.backends.checkpoint.arrays import Array
from hessiod.backends.checkpoint.container import Container, write_container
from hessiod.backends.checkpoint.legacy import modern
from hessiod.backends.checkpoint.pairs import Pair, pair
from hessiod.backends.checkpoint.record import record_from
from hessiod.backends.checkpoint.state import arrays_of, own_version
from hessiod.checkpoint import framework_of, load, save
from hessiod.core.errors import InvalidArgument

checkpoint = typer.Typer(
    help="Look into checkpoints, verify them, pair them with a model, convert them.",
    no_args_is_help=True,
    add_completion=False,
)
File = Annotated[Path, typer.Argument(help="a checkpoint")]
MODEL_HELP = "module:callable that returns the model, or model and optimizer"
SUFFIXES = {"torch": ".pt", "mindspore": ".ckpt", "hessiod": ".safetensors"}


def say(text: str) -> None:
    """A line as it is, whatever its length."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


@checkpoint.command()
def inspect(file: File) -> None:
    """Print what a checkpoint holds."""
    with Container(file) as found:
        document = modern(found)
        written, optimizer = document["written"], document.get("optimizer")
        versions = ", ".join(f"{name} {version}" for name, version in written["versions"].items())
        say(
            f"format hessiod-{found.version}, written by hessiod {written['hessiod']} {versions and f'with {versions}'}"
        )
        if optimizer:
            kind = optimizer["optimizer"] or "an optimizer"
            say(f"{kind} after step {optimizer['step']}, settings {optimizer['settings']}")
            for group in optimizer["groups"] or ():
                numbers = {"lr": group["lr"], **group["hyperparameters"], **group["settings"]}
                say(f"  rule {group['rule']}, {len(group['parameters'])} parameters, {numbers}")
            if kronecker := optimizer.get("kronecker"):
                say(f"  damping {kronecker['damping']}, {len(kronecker['layers'])} layers with statistics")
                for name, layer in kronecker["layers"].items():
                    say(f"    {name}: {layer['counters']}")
        say(f"extra {document.get('extra')}")
        table = Table("array", "dtype", "shape", "bytes")
        for name, entry in found.entries.items():
            table.add_row(name, entry.dtype, str(list(entry.shape)), f"{entry.end - entry.begin:,}")
        Console(width=None if sys.stdout.isatty() else 160).print(table)
        say(f"SHA-256 of the arrays: {found.content}")


@checkpoint.command()
def verify(file: File) -> None:
    """Read a checkpoint whole and compare it with its SHA-256."""
    with Container(file) as found:
        found.verify()
        size = sum(entry.end - entry.begin for entry in found.entries.values())
        checked = "" if found.version > 1 else "; format 1 has no SHA-256, so only its form was checked"
        say(f"{file}: {len(found.entries)} arrays, {size:,} bytes, whole{checked}")


def built(model: str) -> tuple[Any, Any]:
    """The model, and the optimizer or None, that ``module:callable`` returns."""
    module, _, name = model.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InvalidArgument(
            f"model: cannot call {model!r} ({error}); give module:callable, without arguments, importable from here"
        ) from error
    finally:
        sys.path.pop(0)
    return found if isinstance(found, tuple) else (found, None)


def paired(file: Container, model: Any, optimizer: Any) -> list[Pair]:
    """The pairs of a file and a model, and its optimizer if there is one."""
    bridge = import_module(f"hessiod.backends_{framework_of(model)}.checkpoint").bridge(model, optimizer)
    saved = modern(file).get("optimizer")
    slots = bridge.slots_for(record_from(saved)) if saved and optimizer is not None else ()
    pairs = pair(file.entries, arrays_of(bridge, slots))
    return [p for p in pairs if optimizer is not None or not p.name.startswith("optimizer/")]


def native(array: Array | None) -> str:
    """How the framework calls an array, and its shape where it has another one."""
    if array is None:
        return "-"
    shape = "" if array.native_shape in (None, array.shape) else f" {list(array.native_shape or ())}"
    return f"{array.native}{shape}"


@checkpoint.command("map")
def map_(file: File, model: Annotated[str, typer.Option(help=MODEL_HELP)]) -> None:
    """Pair a checkpoint's arrays with a model's and load nothing; the exit status is 1 if some do not fit."""
    with Container(file) as found:
        pairs = paired(found, *built(model))
    table = Table("file", "dtype", "shape", "model", "")
    for p in pairs:
        entry = p.entry
        row = (p.name, entry.dtype, str(list(entry.shape))) if entry else ("-", "", "")
        table.add_row(*row, native(p.array), p.problem or "fits")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    unfit = [p for p in pairs if p.problem]
    for p in unfit:
        say(f"{p.name}: {p.problem}")
    say(f"{len(pairs) - len(unfit)} fit, {len(unfit)} do not")
    raise typer.Exit(1 if unfit else 0)


@checkpoint.command()
def convert(
    file: Annotated[Path, typer.Argument(help="a checkpoint, or a file of torch.save or mindspore.save_checkpoint")],
    to: Annotated[str, typer.Option(help="torch, mindspore or hessiod")],
    out: Annotated[Path | None, typer.Option(help="the new file (default: beside the old one)")] = None,
    model: Annotated[str | None, typer.Option(help=MODEL_HELP)] = None,
    weights_only: Annotated[bool, typer.Option("--weights-only", help="leave the optimizer out")] = False,
) -> None:
    """Convert between a framework's own file and a checkpoint.

    Optimizers need --model to return one beside the model. Weights alone need it from MindSpore's files only, whose
    names do not say what kind of layer they are of.
    """
    if to not in SUFFIXES:
        raise InvalidArgument(f"to: found {to!r}, expected one of {', '.join(SUFFIXES)}")
    out = out or file.with_suffix(SUFFIXES[to])
    if out.resolve() == file.resolve():
        raise InvalidArgument(f"out: {str(out)!r} is the file itself; give another")
    parts = built(model) if model else None
    if to == "hessiod":
        from_native(file, out, parts, weights_only)
    else:
        to_native(file, to, out, parts, weights_only)
    say(str(out))


def from_native(file: Path, out: Path, parts: tuple[Any, Any] | None, weights_only: bool) -> None:
    """A framework's own file as a checkpoint."""
    if parts is not None:
        module = import_module(f"hessiod.backends_{framework_of(parts[0])}.native")
        optimizer = None if weights_only else parts[1]
        module.restore(file, parts[0], optimizer)
        save(out, parts[0], optimizer, extra={"converted": file.name})
        return
    with file.open("rb") as opened:
        if not opened.read(2) == b"PK":
            raise InvalidArgument(f"model: {str(file)!r} is not of torch.save; give the net of MindSpore with --model")
    torch_native = import_module("hessiod.backends_torch.native")
    weights, optimizer = torch_native.read(file)
    if optimizer is not None and not weights_only:
        raise InvalidArgument(
            f"file: {str(file)!r} holds an optimizer, whose kind it does not say; give --model that returns model and "
            "optimizer, or --weights-only"
        )
    arrays = torch_native.arrays(weights)
    names = [array.name.removeprefix("model/") for array in arrays]
    written = {"hessiod": own_version(), "framework": "torch", "versions": {}}
    body = {"written": written, "model": {"arrays": names, "layers": {}, "tied": {}}, "optimizer": None}
    write_container(out, arrays, {**body, "schedule": {"step": None}, "extra": {"converted": file.name}})


def to_native(file: Path, to: str, out: Path, parts: tuple[Any, Any] | None, weights_only: bool) -> None:
    """A checkpoint as a framework's own file."""
    module = import_module(f"hessiod.backends_{to}.native")
    if parts is not None:
        if framework_of(parts[0]) != to:
            raise InvalidArgument(f"model: found one of {framework_of(parts[0])}, expected one of {to}")
        optimizer = None if weights_only else parts[1]
        load(file, parts[0], optimizer)
        module.write(out, parts[0], optimizer)
        return
    with Container(file) as found:
        found.verify()
        if modern(found).get("optimizer") and not weights_only:
            raise InvalidArgument(
                f"model: {str(file)!r} holds an optimizer; give --model that returns model and optimizer, or "
                "--weights-only"
            )
        module.write_weights(out, found)
