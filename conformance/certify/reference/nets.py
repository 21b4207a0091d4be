"""Small nets, from the parts above."""

import jax.numpy as jnp

from hessiod.conformance.certify.reference import elementwise, layers
from hessiod.conformance.certify.reference.losses import each


def mlp(activation):
    """One hidden layer and a cross-entropy."""
    return lambda x, w1, b1, w2, b2, labels: each(activation(x @ w1.T + b1) @ w2.T + b2, labels).mean()


def relu(x):
    """The positive part."""
    return jnp.where(x > 0, x, 0.0)


def conv_block(x, weight, gamma, beta):
    """Convolution, batch normalization, rectifier, pooling."""
    y = relu(layers.batch_norm(layers.convolution(padding=1)(x, weight), gamma, beta))
    return layers.windows(y, (2, 2), 2).max((-1, -2))


def residual_block(x, weight, gamma, beta):
    """A convolution beside the identity."""
    return relu(x + layers.batch_norm(layers.convolution(padding=1)(x, weight), gamma, beta))


def gpt_block(x, g1, c1, qkv, out, g2, c2, up, down, head, labels):
    """Causal attention with two heads, an MLP, a head and the loss of the next token."""
    parts = jnp.split(layers.layer_norm(x, g1, c1) @ qkv.T, 3, -1)
    q, k, v = (part.reshape(1, 3, 2, 2).transpose(0, 2, 1, 3) for part in parts)
    mixed = layers.attention(q, k, v, jnp.tril(jnp.ones((3, 3), bool)))
    x = x + mixed.transpose(0, 2, 1, 3).reshape(1, 3, 4) @ out.T
    x = x + elementwise.gelu_tanh(layers.layer_norm(x, g2, c2) @ up.T) @ down.T
    return each(x @ head.T, labels).mean()


CASES = {
    "mlp_tanh": mlp(jnp.tanh),
    "mlp_gelu": mlp(elementwise.CASES["gelu"]),
    "mlp_silu": mlp(elementwise.CASES["silu"]),
    "mlp_relu": mlp(relu),
    "conv_block": conv_block,
    "residual_block": residual_block,
    "gpt_block": gpt_block,
}
