"""The character GPT as MindSpore Cells; parameter names and shapes are GPTConfig's.

Every Cell is built from operators whose second derivative MindSpore 2.10 has right when traced. ``nn.LayerNorm`` is not
among them (its double gradient drops epsilon, without a word), nor are tanh-GELU and cross-entropy with integer labels
(no second derivative at all), so these three are written out.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from hessiod.backends.gpt.config import GPTConfig


class LayerNorm(nn.Cell):
    """``(x - mean) / sqrt(var + epsilon) * weight + bias`` over the last axis."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = Parameter(Tensor(np.ones(width, np.float32)), name="weight")
        self.bias = Parameter(Tensor(np.zeros(width, np.float32)), name="bias")

    def construct(self, x):
        """Normalise the last axis."""
        centred = x - x.mean(-1, keep_dims=True)
        variance = (centred * centred).mean(-1, keep_dims=True)
        return centred * ops.rsqrt(variance + self.epsilon) * self.weight + self.bias


class Table(nn.Cell):
    """Rows of a matrix, by number."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.zeros(shape, np.float32)), name="weight")

    def construct(self, numbers):
        """``weight[numbers]``."""
        return ops.gather(self.weight, numbers, 0)


def gelu(x):
    """The tanh form of GELU."""
    return 0.5 * x * (1.0 + ops.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


class Block(nn.Cell):
    """Attention and a two-layer perceptron, each behind a LayerNorm and added to the stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.depth = config.heads, width // config.heads
        self.scale = self.depth**-0.5
        self.norm1 = LayerNorm(width, config.epsilon)
        self.attend = nn.Dense(width, 3 * width, has_bias=False)
        self.merge = nn.Dense(width, width, has_bias=False)
        self.norm2 = LayerNorm(width, config.epsilon)
        self.expand = nn.Dense(width, 4 * width, has_bias=False)
        self.contract = nn.Dense(4 * width, width, has_bias=False)

    def construct(self, x, future):
        """``[rows, context, width]`` to the same; ``future`` is -1e9 where attention may not look."""
        x = x + self.merge(self.attention(self.attend(self.norm1(x)), future))
        return x + self.contract(gelu(self.expand(self.norm2(x))))

    def attention(self, projected, future):
        """Causal self-attention over ``[rows, context, 3 * width]``."""
        rows, context, _ = projected.shape
        parts = ops.transpose(projected.reshape(rows, context, 3, self.heads, self.depth), (2, 0, 3, 1, 4))
        query, key, value = parts[0], parts[1], parts[2]
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * self.scale
        weights = ops.softmax(scores + future, -1)
        return ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3)).reshape(rows, context, -1)


class GPT(nn.Cell):
    """Logits ``[rows, context, vocabulary]`` from tokens ``[rows, context]``."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.tokens = Table((config.vocabulary, config.width))
        self.positions = Table((config.context, config.width))
        self.blocks = nn.CellList([Block(config) for _ in range(config.layers)])
        self.norm = LayerNorm(config.width, config.epsilon)
        self.head = nn.Dense(config.width, config.vocabulary, has_bias=False)
        future = np.triu(np.full((config.context, config.context), -1e9, np.float32), 1)
        self.future = Tensor(future)

    def construct(self, tokens):
        """The logits of each position's next byte."""
        context = tokens.shape[1]
        x = self.tokens(tokens) + self.positions.weight[:context]
        for block in self.blocks:
            x = block(x, self.future[:context, :context])
        return self.head(self.norm(x))


class CrossEntropy(nn.Cell):
    """The mean of ``logsumexp(z) - z[y]`` over all targets, in a form that can be differentiated twice."""

    def construct(self, logits, targets):
        """Logits ``[..., classes]``, integer targets ``[...]``."""
        classes = logits.shape[-1]
        shifted = logits - ops.stop_gradient(ops.amax(logits, -1, True))
        chosen = ops.cast(ops.arange(0, classes, 1, dtype=ms.int32) == ops.expand_dims(targets, -1), logits.dtype)
        return (ops.log(ops.exp(shifted).sum(-1)) - (shifted * chosen).sum(-1)).mean()
