"""Arrays and a JSON document in one safetensors file, written atomically and refused whole when torn or foreign."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hessiod.core.errors import InvalidArgument

FORMAT = "hessiod-1"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by a file with these bytes; at every moment it holds all of the old ones or all of the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], document: Mapping[str, Any]) -> None:
    """Write named arrays and a document that JSON can hold."""
    metadata = {"format": FORMAT, "document": json.dumps(document, sort_keys=True)}
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    write_atomically(path, save(contiguous, metadata=metadata))


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what :func:`save_arrays` wrote; raise :class:`InvalidArgument` for anything else."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InvalidArgument(
                    f"checkpoint: {str(path)!r} has the format {metadata.get('format')!r}, expected {FORMAT!r}; "
                    "give a checkpoint.safetensors written by hessiod"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, json.loads(metadata["document"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise InvalidArgument(
            f"checkpoint: cannot read {str(path)!r} ({error}); give a checkpoint.safetensors written by hessiod"
        ) from error
