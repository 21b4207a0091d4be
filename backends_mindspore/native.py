"""MindSpore's own files: ``mindspore.save_checkpoint`` of a net's parameters and, behind them, an optimizer's."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from hessiod.backends.checkpoint.atomic import sync_folder
from hessiod.backends.checkpoint.container import Container
from hessiod.backends.checkpoint.layouts import LAYERS, expanded
from hessiod.backends_mindspore.checkpoint import put
from hessiod.core.errors import InvalidArgument


def own_arrays(net: nn.Cell, optimizer: Any) -> dict[str, Parameter]:
    """Every parameter of a net and an optimizer, by the name that MindSpore's files have for it."""
    found = dict(net.parameters_and_names())
    return found | ({} if optimizer is None else {p.name: p for p in optimizer.get_parameters() if p.name not in found})


def restore(path: Path, net: nn.Cell, optimizer: Any) -> None:
    """Load a file of MindSpore into a net and an optimizer; every parameter must be there, in its shape and dtype."""
    try:
        found = ms.load_checkpoint(str(path), format=path.suffix.removeprefix("."))  # ckpt or safetensors
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgument(
            f"file: cannot read {str(path)!r} as one of mindspore.save_checkpoint ({reason}); give one"
        ) from error
    wanted = own_arrays(net, optimizer)
    wrong = [f"{name}: {fault}" for name, p in wanted.items() if (fault := misfit(found.get(name), p))]
    wrong += [f"{name}: it is only in the file" for name in found if name not in wanted and optimizer is not None]
    if wrong:
        raise InvalidArgument(
            f"file: {str(path)!r} does not fit the net and optimizer: {'; '.join(wrong)}; give its own"
        )
    for name, parameter in wanted.items():
        put(parameter, np.ascontiguousarray(found[name].asnumpy()))


def misfit(found: Parameter | None, parameter: Parameter) -> str:
    """Why a parameter of a file is not this one, or an empty text."""
    if found is None:
        return "it is not in the file"
    if found.shape != parameter.shape or found.dtype != parameter.dtype:
        return f"found {found.dtype} {found.shape}, expected {parameter.dtype} {parameter.shape}"
    return ""


def write(path: Path, net: nn.Cell, optimizer: Any) -> None:
    """Write a file of MindSpore."""
    save(path, [{"name": name, "data": parameter} for name, parameter in own_arrays(net, optimizer).items()])


def write_weights(path: Path, file: Container) -> None:
    """Write the weights of a checkpoint under MindSpore's names and layouts, by the layers that it lists."""
    rows = []
    for name, entry in file.entries.items():
        native = native_name(name.removeprefix("model/"), file.document["model"]["layers"])
        if name.startswith("model/") and native is not None:
            values = file.read(name).copy()
            shape = native_shape(name.removeprefix("model/"), entry.shape, file.document["model"]["layers"])
            rows.append({"name": native, "data": tensor_of(values.reshape(shape), entry.dtype)})
    save(path, rows)


def tensor_of(values: np.ndarray, dtype: str) -> Tensor:
    """A tensor of the values, which for bfloat16 are bits."""
    if dtype != "BF16":
        return Tensor(values)
    wide = (values.astype(np.uint32) << 16).view(np.float32)
    return Tensor(wide).astype(ms.bfloat16)


def native_name(name: str, layers: dict[str, str]) -> str | None:
    """MindSpore's name for a canonical one; None for what it has not."""
    path, _, key = name.rpartition(".")
    kind = layers.get(path)
    layer, wrapped = LAYERS.get(kind or ""), ""
    if kind == "BatchNorm3d":
        layer, wrapped = LAYERS["BatchNorm2d"], "bn2d."
    if layer is not None and key == "num_batches_tracked":
        return None
    keys = {canonical: own for own, canonical in layer.parameters.items()} if layer else {}
    parts = path.split(".") if path else []
    for depth in range(len(parts)):
        parent = LAYERS.get(layers.get(".".join(parts[:depth]), ""))
        inverse = {canonical: own for own, canonical in parent.children.items()} if parent else {}
        parts[depth] = inverse.get(parts[depth], parts[depth])
    return "".join(f"{part}." for part in parts) + wrapped + keys.get(key, key)


def native_shape(name: str, shape: tuple[int, ...], layers: dict[str, str]) -> tuple[int, ...]:
    """MindSpore's shape of a canonical array."""
    path, _, key = name.rpartition(".")
    layer = LAYERS.get(layers.get(path, ""))
    return expanded(shape, key, layer) if layer else shape


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    """``mindspore.save_checkpoint``, atomically."""
    if path.suffix != ".ckpt":
        raise InvalidArgument(f"out: found {str(path)!r}, expected a name that ends in .ckpt; MindSpore takes no other")
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft = Path(folder) / "draft.ckpt"
        ms.save_checkpoint(rows, str(draft))
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    sync_folder(path.parent)
