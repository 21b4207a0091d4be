"""Golden data, in float64, that let a machine with one framework be held against numbers that came from elsewhere.

=======================  =====================================================================================
``gpt``, ``digits``      losses of each training run, step by step; ``python -m hessiod.conformance.golden``
``objectives/``          losses, gradients and Hessian products, as ONNX tensors; ``...golden.make_objectives``
``digits.txt``           images cut from scikit-learn's; ``...golden.digits``
``apache-2.0.txt``       the text that the GPT trains on
=======================  =====================================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

SUFFIXES = (".json", ".txt", ".pb")


def data_files(folder: Traversable, path: str = "") -> Iterator[tuple[str, bytes]]:
    """Every file of golden data with its path, in order."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from data_files(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(SUFFIXES):
            yield path + entry.name, entry.read_bytes()


@cache
def digest() -> str:
    """SHA-256 of all golden data."""
    found = hashlib.sha256()
    for path, content in data_files(files("hessiod.conformance.golden")):
        found.update(f"{path} {len(content)}\n".encode() + content)
    return found.hexdigest()
