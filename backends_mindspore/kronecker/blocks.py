"""A layer's block of the preconditioner: natural gradients in the graph, damped inverses on the host."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from hessiod.backends.numpy import namespace as np_xp
from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.holder import Holder
from hessiod.backends_mindspore.kronecker.layers import Embedding, Layer, Norm
from hessiod.core.errors import NonFinite
from hessiod.core.kronecker import damping as damp
from hessiod.core.kronecker import precondition, unitwise
from hessiod.core.kronecker.inverses import INVERSES, block_inverses

LOG = logging.getLogger("hessiod")


class Settings(NamedTuple):
    """How a block is inverted."""

    damping: float
    inverse: str
    block_size: int | None


# On the host


def damped_inverses(layer: Layer, a: Any, g: Any, settings: Settings) -> tuple[list[Any], list[Any]]:
    """The inverses of A and G in blocks, with pi-corrected factored damping.

    Newton-Schulz consists of matrix products and runs on MindSpore's device; the others are numpy's.
    """
    scalars = damp.root_scalars(damping=settings.damping)
    out, size = layer.shape
    added_a, added_g = damp.factored(np_xp, layer.trace_a(a), np_xp.trace(g), size, out, **scalars)
    inverse, block = INVERSES[settings.inverse], settings.block_size
    namespace: Any = np_xp
    added_a, added_g = (part.astype(a.dtype) for part in (added_a, added_g))
    if settings.inverse == "newton-schulz":
        a, g, added_a, added_g = map(Tensor, (a, g, added_a, added_g))
        namespace = xp
    inverse_a = layer.inverse_a(namespace, a, added_a, inverse, block)
    inverse_g = block_inverses(namespace, g, added_g, inverse=inverse, block=block)
    return [on_host(part) for part in inverse_a], [on_host(part) for part in inverse_g]


def on_host(array: Any) -> np.ndarray:
    """A tensor as numpy's array."""
    return array.asnumpy() if isinstance(array, Tensor) else array


def inverted(layer: Layer, a: Any, g: Any, settings: Settings) -> dict[str, Any]:
    """The inverses for a layer's state, and the damping that was used.

    Where a damped factor is not positive definite its damping is raised, ten times each time, and that is reported.
    """
    damping = settings.damping
    for _ in range(damp.ATTEMPTS):
        inverse_a, inverse_g = damped_inverses(layer, a, g, settings._replace(damping=damping))
        if all(np.isfinite(block).all() for block in (*inverse_a, *inverse_g)):
            if damping != settings.damping:
                LOG.warning(
                    "layer %s: a factor with damping %.3g is not positive definite; damping raised to %.3g for it",
                    layer.name,
                    settings.damping,
                    damping,
                )
            return {"inverse_a": inverse_a, "inverse_g": inverse_g, "damping": damping}
        damping *= damp.RAISE
    raise NonFinite(
        f"layer {layer.name}: its factors have no inverse even with damping {damping:.3g}; nothing was changed. Lower "
        "learning_rate, raise damping, or leave the layer out with skip=[...]"
    )


def curvature(layer: Layer, moves: list[Any], state: Mapping[str, Any]) -> float:
    """``<delta, F delta>`` of a move of a layer's parameters."""
    if isinstance(layer, Norm):
        pair = {role: move.reshape(-1) for role, move in zip(layer.roles, moves, strict=True)}
        scale, shift = (pair.get(role, 0.0) for role in ("scale", "shift"))
        gg, gb, bb = state["factor_f"]
        return float((gg * scale * scale + 2.0 * gb * scale * shift + bb * shift * shift).sum())
    move = moves[0] if isinstance(layer, Embedding) else matrix_of(layer, moves)
    product = precondition.fisher_product_embedding if isinstance(layer, Embedding) else precondition.fisher_product
    return float((move * product(np_xp, move, state["factor_a"], state["factor_g"])).sum())


def matrix_of(layer: Layer, arrays: list[Any]) -> Any:
    """The weight's and the bias's arrays as one matrix."""
    weight = arrays[0].reshape(*layer.lead, layer.shape[0], -1)
    return np_xp.concat_last((weight, arrays[1].reshape(*layer.lead, -1, 1))) if layer.bias else weight


# In the graph


class MatrixBlock(Holder):
    """``G^-1 grad A^-1``."""

    def __init__(self, layer: Layer, inverse_a: ParameterTuple, inverse_g: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.inverse_a, self.inverse_g = inverse_a, inverse_g
        self.bias, self.dtype = layer.bias, ms.float64 if layer.dtype == np.float64 else ms.float32
        self.matrix_shape = (*layer.lead, layer.shape[0], layer.shape[1] - layer.bias)
        self.column_shape = (*layer.lead, layer.shape[0], 1)
        self.shapes = tuple(tuple(param.shape) for param in layer.params)

    def construct(self, grads):
        """The natural gradient of the weight, and of the bias."""
        matrix = ops.cast(grads[0], self.dtype).reshape(self.matrix_shape)
        if self.bias:
            matrix = xp.concat_last((matrix, ops.cast(grads[1], self.dtype).reshape(self.column_shape)))
        found = precondition.precondition(xp, matrix, self.inverse_a, self.inverse_g)
        if self.bias:
            return found[..., :-1].reshape(self.shapes[0]), found[..., -1].reshape(self.shapes[1])
        return (found.reshape(self.shapes[0]),)


class EmbeddingBlock(Holder):
    """``A^-1 grad G^-1``, for rows that are tokens."""

    def __init__(self, layer: Layer, inverse_a: ParameterTuple, inverse_g: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.inverse_a, self.inverse_g = inverse_a, inverse_g
        self.dtype = ms.float64 if layer.dtype == np.float64 else ms.float32

    def construct(self, grads):
        """The natural gradient of the table."""
        grad = ops.cast(grads[0], self.dtype)
        return (precondition.precondition_embedding(xp, grad, self.inverse_a[0], self.inverse_g),)


class NormBlock(nn.Cell):
    """``(F_c + damping I)^-1`` times the gradients of scale and shift, channel by channel."""

    def __init__(self, layer: Norm, factor: Any, damping: Any) -> None:
        super().__init__(auto_prefix=False)
        self.factor, self.damping = factor, damping
        self.dtype = ms.float64 if layer.dtype == np.float64 else ms.float32
        self.pair, self.place = len(layer.params) == 2, 0 if layer.roles == ("scale",) else 2
        self.shapes = tuple(tuple(param.shape) for param in layer.params)

    def construct(self, grads):
        """The natural gradient of each."""
        damping = ops.cast(self.damping, self.dtype)
        first = ops.cast(grads[0], self.dtype).reshape((-1,))
        if self.pair:
            second = ops.cast(grads[1], self.dtype).reshape((-1,))
            scale, shift = unitwise.precondition_unit(
                xp, first, second, self.factor[0], self.factor[1], self.factor[2], damping=damping
            )
            return scale.reshape(self.shapes[0]), shift.reshape(self.shapes[1])
        found = unitwise.precondition_scale(xp, first, self.factor[self.place], damping=damping)
        return (found.reshape(self.shapes[0]),)
