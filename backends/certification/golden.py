"""The golden values: gradients and Hessian products of every case in float64, as two independent sources agree on them.

``python -m hessiod.conformance.certify.golden`` makes the file anew from jax.numpy and from PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from hessiod.backends.certification.case import Case
from hessiod.backends.certification.catalogue import CATALOGUE
from hessiod.core.errors import InvalidState

GOLDEN = Path(__file__).with_name("golden.safetensors")


@dataclass(frozen=True)
class Golden:
    """A case at its point: what to feed in, and what must come out.

    ``weights`` is the ``c`` of the case's objective, ``directions`` what the Hessian is multiplied by. Gradients and
    products are by input.
    """

    inputs: dict[str, np.ndarray]
    directions: dict[str, np.ndarray]
    weights: np.ndarray
    gradients: dict[str, np.ndarray]
    products: dict[str, np.ndarray]


def digest_of(inputs: dict[str, np.ndarray]) -> str:
    """SHA-256 of arrays, short."""
    parts = hashlib.sha256()
    for name, array in inputs.items():
        parts.update(name.encode() + array.astype(np.float64).tobytes())
    return parts.hexdigest()[:16]


def file_digest(path: Path = GOLDEN) -> str:
    """SHA-256 of the golden file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def read() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The file's arrays and its document."""
    with safe_open(GOLDEN, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["document"])  # noqa: SIM118


def golden(case: Case) -> Golden:
    """The golden values of a case; raise if they were made at another point."""
    arrays, document = read()
    inputs = case.draw()
    if document["points"].get(case.name) != digest_of(inputs):
        raise InvalidState(
            f"certification: the golden values of {case.name!r} were made at another point; make them anew with "
            "`python -m hessiod.conformance.certify.golden`"
        )
    weights = arrays[f"{case.name}/weights"].astype(np.float64)
    return Golden(
        inputs,
        case.draw_like(inputs, 1),
        weights,
        {name: arrays[f"{case.name}/gradient/{name}"] for name in inputs},
        {name: arrays[f"{case.name}/product/{name}"] for name in inputs},
    )


def of(name: str) -> Golden:
    """The golden values of the case of a name.

    >>> of("square").gradients["x"].shape
    (3, 4)
    """
    return golden(CATALOGUE[name])


def describe() -> dict[str, Any]:
    """How the file was made, for reports."""
    return json.loads(json.dumps({key: value for key, value in read()[1].items() if key != "points"}))
