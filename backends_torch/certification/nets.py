"""Small nets."""

import torch
from torch.nn import functional as F


def mlp(activation):
    """One hidden layer and a cross-entropy."""
    return lambda x, w1, b1, w2, b2, labels: F.cross_entropy(F.linear(activation(F.linear(x, w1, b1)), w2, b2), labels)


def conv_block(x, weight, gamma, beta):
    """Convolution, batch normalization, rectifier, pooling."""
    y = F.conv2d(x, weight, padding=1)
    return F.max_pool2d(F.relu(F.batch_norm(y, None, None, gamma, beta, training=True)), 2)


def residual_block(x, weight, gamma, beta):
    """A convolution beside the identity."""
    y = F.conv2d(x, weight, padding=1)
    return F.relu(x + F.batch_norm(y, None, None, gamma, beta, training=True))


def gpt_block(x, g1, c1, qkv, out, g2, c2, up, down, head, labels):
    """Causal attention with two heads, an MLP, a head and the loss of the next token."""
    rows, length, width = x.shape
    q, k, v = F.linear(F.layer_norm(x, (width,), g1, c1), qkv).chunk(3, -1)
    q, k, v = (part.reshape(rows, length, 2, width // 2).transpose(1, 2) for part in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(rows, length, width)
    x = x + F.linear(mixed, out)
    x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (width,), g2, c2), up), approximate="tanh"), down)
    logits = F.linear(x, head)
    return F.cross_entropy(logits.reshape(rows * length, -1), labels.reshape(-1))


CASES = {
    "mlp_tanh": mlp(torch.tanh),
    "mlp_gelu": mlp(F.gelu),
    "mlp_silu": mlp(F.silu),
    "mlp_relu": mlp(F.relu),
    "conv_block": conv_block,
    "residual_block": residual_block,
    "gpt_block": gpt_block,
}
