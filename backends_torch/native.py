"""Torch's own files: ``torch.save`` of ``{"model": state_dict, "optimizer": state_dict}``, or of a model's alone."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hessiod.backends.checkpoint.arrays import Array
from hessiod.backends.checkpoint.atomic import write_atomically
from hessiod.backends.checkpoint.container import Container
from hessiod.backends_torch.saved_tensors import array_of
from hessiod.core.errors import InvalidArgument


def read(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Any] | None]:
    """The model's and the optimizer's ``state_dict`` in a file; only tensors and plain containers are unpickled."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise InvalidArgument(
            f"file: cannot read {str(path)!r} as one of torch.save with weights_only=True "
            f"({str(error).splitlines()[0]}); nothing else is ever unpickled. Save state_dict()s"
        ) from error
    model, optimizer = (found["model"], found.get("optimizer")) if in_parts(found) else (found, None)
    if not isinstance(model, Mapping) or not all(isinstance(value, Tensor) for value in model.values()):
        raise InvalidArgument(
            f"file: {str(path)!r} holds no state_dict of a model; save it as torch.save(model.state_dict()) or as "
            'torch.save({"model": ..., "optimizer": ...})'
        )
    return model, optimizer


def in_parts(found: Any) -> bool:
    """Whether a file has a model's part, and not only its tensors."""
    return isinstance(found, Mapping) and isinstance(found.get("model"), Mapping)


def arrays(model: Mapping[str, Tensor]) -> list[Array]:
    """A ``state_dict``'s tensors, shared ones under their first name."""
    seen: dict[int, str] = {}
    kept = {name: t for name, t in model.items() if seen.setdefault(id(t), name) == name}
    return [array_of(f"model/{name}", tensor, name) for name, tensor in kept.items()]


def restore(path: Path, model: nn.Module, optimizer: Any) -> None:
    """Load a file of torch into a model and an optimizer."""
    weights, state = read(path)
    if optimizer is not None and state is None:
        raise InvalidArgument(f"file: {str(path)!r} holds no optimizer; let --model return the model alone")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InvalidArgument(f"file: {str(path)!r} does not fit the model: {error}; give its own --model") from error
    if optimizer is not None and state is not None:
        optimizer.load_state_dict(state)


def write(path: Path, model: nn.Module, optimizer: Any) -> None:
    """Write a file of torch."""
    parts = {"model": model.state_dict()} | ({} if optimizer is None else {"optimizer": optimizer.state_dict()})
    put(path, parts)


def write_weights(path: Path, file: Container) -> None:
    """Write the weights of a checkpoint as a file of torch; the names are torch's already."""
    weights = {}
    for name in file.entries:
        if name.startswith("model/"):
            values = torch.from_numpy(file.read(name).copy())
            is_bfloat = file.entries[name].dtype == "BF16"
            weights[name.removeprefix("model/")] = values.view(torch.bfloat16) if is_bfloat else values
    weights |= {alias: weights[name] for alias, name in file.document["model"]["tied"].items()}
    put(path, {"model": weights})


def put(path: Path, parts: Mapping[str, Any]) -> None:
    """``torch.save``, atomically."""
    buffer = io.BytesIO()
    torch.save(dict(parts), buffer)
    write_atomically(path, buffer.getvalue())
