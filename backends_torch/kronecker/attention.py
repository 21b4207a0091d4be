"""The projections of ``nn.MultiheadAttention`` as layers of their own.

torch's attention multiplies by its weights inside of one function, where no hook reaches. While statistics are
gathered its ``forward`` is therefore :func:`attend`, the same mathematics with the four projections in the open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hessiod.backends_torch.kronecker.layers import Layer, Slot

Observe = Callable[[str, Tensor, Tensor], Tensor]
"""Called with "query", "key", "value" or "out", the projection's input and its output; returns the output to use."""


def projections(name: str, module: nn.MultiheadAttention) -> list[Any] | str:
    """Layers of the projections, or why there are none."""
    if module.bias_k is not None or module.add_zero_attn:
        return "attention with add_bias_kv or add_zero_attn"
    params = [param for param in module.parameters() if param is not None]
    if not all(param.requires_grad for param in params):
        return "attention with frozen projections"
    layers, size = [], module.embed_dim
    for index, label in enumerate(("query", "key", "value")):
        rows = slice(index * size, (index + 1) * size)
        if module.in_proj_weight is not None:
            slots = [Slot(module.in_proj_weight, rows)]
        else:
            slots = [Slot(getattr(module, f"{label[0]}_proj_weight"))]
        if module.in_proj_bias is not None:
            slots.append(Slot(module.in_proj_bias, rows))
        layers.append(Layer(f"{name}.{label}", module, slots, label))
    out = [Slot(module.out_proj.weight)] + ([Slot(module.out_proj.bias)] if module.out_proj.bias is not None else [])
    return [*layers, Layer(f"{name}.out_proj", module, out, "out")]


def attend(module: Any, observe: Observe) -> Callable[..., Any]:
    """A forward for ``module`` that shows each projection to ``observe``."""

    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x[None] for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not module.batch_first:
            query, key, value = transposed(query, key, value)
        heads = [
            shown(module, label, x, observe).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
            for label, x in (("query", query), ("key", key), ("value", value))
        ]
        mask = joined_mask(module, heads[0], heads[1], attn_mask, key_padding_mask)
        mixed, weights = mix(module, heads, mask, need_weights)
        mixed = mixed.transpose(1, 2).flatten(2)
        out = observe("out", mixed, F.linear(mixed, module.out_proj.weight, module.out_proj.bias))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return out[0], None if weights is None else weights[0]
        return (out if module.batch_first else out.transpose(0, 1)), weights

    return forward


def transposed(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Batch first; inputs that are one tensor stay one."""
    query_t = query.transpose(0, 1)
    key_t = query_t if key is query else key.transpose(0, 1)
    return [query_t, key_t, key_t if value is key else value.transpose(0, 1)]


def shown(module: Any, label: str, x: Tensor, observe: Observe) -> Tensor:
    """A projection's output, after ``observe`` saw it."""
    size, index = module.embed_dim, ("query", "key", "value").index(label)
    rows = slice(index * size, (index + 1) * size)
    packed = module.in_proj_weight
    weight = getattr(module, f"{label[0]}_proj_weight") if packed is None else packed[rows]
    bias = None if module.in_proj_bias is None else module.in_proj_bias[rows]
    return observe(label, x, F.linear(x, weight, bias))


def joined_mask(module: Any, query: Tensor, key: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor | None:
    """Both masks added up, as numbers that are added to the scores, ``[N or 1, heads or 1, L, S]``."""
    total = None
    for part, shape in ((mask, None), (padding, (-1, 1, 1, key.shape[2]))):
        if part is None:
            continue
        if part.dtype == torch.bool:
            part = torch.zeros_like(part, dtype=query.dtype).masked_fill_(part, float("-inf"))
        if shape is None:
            shape = (-1, module.num_heads, *part.shape[1:]) if part.dim() == 3 else (1, 1, *part.shape)
        part = part.to(query.dtype).reshape(shape)
        total = part if total is None else total + part
    return total


def mix(module: Any, heads: list[Tensor], mask: Tensor | None, need_weights: bool) -> tuple[Tensor, Tensor | None]:
    """Attention over ``[N, heads, L, d]``, and its weights ``[N, heads, L, S]`` if they are needed."""
    dropout = module.dropout if module.training else 0.0
    query, key, value = heads
    if not need_weights:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout), None
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    weights = F.dropout(weights, dropout)
    return weights @ value, weights
