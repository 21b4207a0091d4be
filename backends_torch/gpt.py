"""The character GPT as ``torch.nn`` modules; parameter names and shapes are GPTConfig's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hessiod.backends.gpt.config import GPTConfig


class Block(nn.Module):
    """Attention and a two-layer perceptron, each behind a LayerNorm and added to the stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width, eps=config.epsilon)
        self.attend = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width, eps=config.epsilon)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, future: Tensor) -> Tensor:
        """``[rows, context, width]`` to the same; ``future`` is true where attention may not look."""
        x = x + self.merge(self._attention(self.attend(self.norm1(x)), future))
        return x + self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh"))

    def _attention(self, projected: Tensor, future: Tensor) -> Tensor:
        """Written out, so that reverse mode differentiates it twice; the fused kernels have no second derivative."""
        rows, context, _ = projected.shape
        query, key, value = projected.view(rows, context, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        weights = torch.softmax(scores.masked_fill(future, -1e9), dim=-1)
        return (weights @ value).transpose(1, 2).reshape(rows, context, -1)


class GPT(nn.Module):
    """Logits ``[rows, context, vocabulary]`` from tokens ``[rows, context]``."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits of each position's next byte."""
        context = tokens.shape[1]
        future = torch.ones(context, context, dtype=torch.bool, device=tokens.device).triu(1)
        x = self.tokens(tokens) + self.positions.weight[:context]
        for block in self.blocks:
            x = block(x, future)
        return self.head(self.norm(x))
