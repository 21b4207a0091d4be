"""The networks of level 4, written with the namespace: pure functions of a list of weights and of prepared inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hessiod.backends.digits.config import MLPConfig
from hessiod.backends.gpt.config import GPTConfig
from hessiod.core.likelihood import softmax

FAR_BELOW = -1e9
"""Added to a score that attention may not see; a softmax makes 0 of it."""


def tanh(xp: Any, x: Any) -> Any:
    """``1 - 2 / (1 + exp(2 x))``."""
    return 1.0 - 2.0 / (1.0 + xp.exp(xp.minimum(2.0 * x, 80.0)))


def linear(xp: Any, x: Any, weight: Any) -> Any:
    """``x W'``."""
    return xp.matmul(x, xp.transpose(weight))


def mlp(config: MLPConfig) -> Callable[..., Any]:
    """``output(tanh(hidden(x)))``."""

    def forward(xp: Any, weights: Any, inputs: Any) -> Any:
        hidden, hidden_bias, output, output_bias = weights
        return linear(xp, tanh(xp, linear(xp, inputs[0], hidden) + hidden_bias), output) + output_bias

    return forward


def layer_norm(xp: Any, x: Any, scale: Any, shift: Any, epsilon: float) -> Any:
    """LayerNorm over the last axis."""
    share = 1.0 / x.shape[-1]
    centred = x - share * xp.sum_last(x)
    variance = share * xp.sum_last(centred * centred)
    return centred / xp.sqrt(variance + epsilon) * scale + shift


def gelu(xp: Any, x: Any) -> Any:
    """The tanh form: ``x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``."""
    return 0.5 * x * (1.0 + tanh(xp, 0.7978845608028654 * (x + 0.044715 * x * x * x)))


def attention(xp: Any, projected: Any, mask: Any, heads: int) -> Any:
    """Causal self-attention; queries, keys and values stand beside each other, head by head."""
    width = projected.shape[-1] // 3
    size = width // heads
    mixed = []
    for head in range(heads):
        query, key, value = (
            projected[..., part * width + head * size : part * width + (head + 1) * size] for part in range(3)
        )
        scores = xp.matmul(query, xp.transpose(key)) * size**-0.5 + mask
        mixed.append(xp.matmul(softmax(xp, scores), value))
    return xp.concat_last(mixed)


def gpt(config: GPTConfig) -> Callable[..., Any]:
    """Logits of each position's next byte, from one-hot tokens and the causal mask."""
    names = list(config.shapes)

    def forward(xp: Any, weights: Any, inputs: Any) -> Any:
        given = dict(zip(names, weights, strict=True))
        tokens, mask = inputs
        x = xp.matmul(tokens, given["tokens.weight"]) + given["positions.weight"][: tokens.shape[-2]]
        for layer in range(config.layers):
            own = {name.split(".", 2)[2]: given[name] for name in names if name.startswith(f"blocks.{layer}.")}
            inner = layer_norm(xp, x, own["norm1.weight"], own["norm1.bias"], config.epsilon)
            x = x + linear(
                xp, attention(xp, linear(xp, inner, own["attend.weight"]), mask, config.heads), own["merge.weight"]
            )
            inner = layer_norm(xp, x, own["norm2.weight"], own["norm2.bias"], config.epsilon)
            x = x + linear(xp, gelu(xp, linear(xp, inner, own["expand.weight"])), own["contract.weight"])
        return linear(
            xp, layer_norm(xp, x, given["norm.weight"], given["norm.bias"], config.epsilon), given["head.weight"]
        )

    return forward


def prepared_features(inputs: np.ndarray) -> list[np.ndarray]:
    """Features as they are."""
    return [inputs]


def prepared_tokens(inputs: np.ndarray) -> list[np.ndarray]:
    """Tokens as one-hot rows of float32, and the causal mask."""
    context = inputs.shape[-1]
    mask = np.triu(np.full((context, context), FAR_BELOW, np.float32), 1)
    return [np.eye(GPTConfig().vocabulary, dtype=np.float32)[inputs], mask]


NETWORKS: Mapping[type, tuple[Callable[[Any], Callable[..., Any]], Callable[[np.ndarray], list[np.ndarray]]]] = {
    MLPConfig: (mlp, prepared_features),
    GPTConfig: (gpt, prepared_tokens),
}
"""For a model's description, the network and what it takes."""
