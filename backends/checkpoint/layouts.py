"""Names and layouts of the standard layers: torch's, which files have, and MindSpore's.

Where the two differ at all, they differ in names and, for 1-D convolutions, in an axis of length 1. The gates of LSTM
and GRU stand in the same order, and Dense and transposed convolutions have the same layout; the tests compare the
layers' outputs. Layers of ``mindspore.mint`` have torch's names already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

AFFINE = {"gamma": "weight", "beta": "bias"}
RUNNING = {"moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclass(frozen=True)
class Layer:
    """A kind of layer: the canonical name for each of MindSpore's parameters and children that has another one.

    ``flat_axis`` is the place in MindSpore's weight of an axis of length 1 that torch's has not. A child called ""
    stands in its parent's place.
    """

    parameters: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, str] = field(default_factory=dict)
    flat_axis: int | None = None


_NORM, _BATCH_NORM = Layer(AFFINE), Layer(AFFINE | RUNNING)
_TRANSFORMER = Layer(children={"dense1": "linear1", "dense2": "linear2"})

LAYERS: Mapping[str, Layer] = {
    "Conv1d": Layer(flat_axis=2),
    "ConvTranspose1d": Layer(flat_axis=2),
    "Embedding": Layer({"embedding_table": "weight"}),
    "BatchNorm1d": _BATCH_NORM,
    "BatchNorm2d": _BATCH_NORM,
    "BatchNorm3d": Layer(children={"bn2d": ""}),
    "SyncBatchNorm": _BATCH_NORM,
    "InstanceNorm1d": _BATCH_NORM,
    "InstanceNorm2d": _BATCH_NORM,
    "InstanceNorm3d": _BATCH_NORM,
    "LayerNorm": _NORM,
    "GroupNorm": _NORM,
    "PReLU": Layer({"w": "weight"}),
    "TransformerEncoderLayer": _TRANSFORMER,
    "TransformerDecoderLayer": _TRANSFORMER,
}
"""By torch's class names. A kind that is not here has the same names and layouts on both."""

MINDSPORE_KINDS: Mapping[str, str] = {"Conv1dTranspose": "ConvTranspose1d", "EmbeddingLookup": "Embedding"}
"""MindSpore's class names where they are others than torch's."""


def kind_of(kinds: type) -> str | None:
    """The kind of layer that a class is, among :data:`LAYERS`; user's classes by the framework's they inherit from."""
    for base in kinds.__mro__:
        if base.__module__.partition(".")[0] in ("torch", "mindspore"):
            name = MINDSPORE_KINDS.get(base.__name__, base.__name__)
            if name in LAYERS:
                return name
    return None


def squeezed(shape: tuple[int, ...], key: str, layer: Layer) -> tuple[int, ...]:
    """The canonical shape for MindSpore's.

    >>> squeezed((8, 4, 1, 3), "weight", LAYERS["Conv1d"])
    (8, 4, 3)
    """
    axis = layer.flat_axis
    if axis is None or key != "weight" or len(shape) != 4 or shape[axis] != 1:
        return shape
    return shape[:axis] + shape[axis + 1 :]


def expanded(shape: tuple[int, ...], key: str, layer: Layer) -> tuple[int, ...]:
    """MindSpore's shape for the canonical one.

    >>> expanded((8, 4, 3), "weight", LAYERS["Conv1d"])
    (8, 4, 1, 3)
    """
    axis = layer.flat_axis
    return shape if axis is None or key != "weight" else (*shape[:axis], 1, *shape[axis:])
