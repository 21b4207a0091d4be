"""Small nets."""

from mindspore import ops


def mlp_tanh(x, w1, b1, w2, b2, labels):
    return ops.cross_entropy(ops.dense(ops.tanh(ops.dense(x, w1, b1)), w2, b2), labels)


def mlp_gelu(x, w1, b1, w2, b2, labels):
    return ops.cross_entropy(ops.dense(ops.gelu(ops.dense(x, w1, b1)), w2, b2), labels)


def mlp_silu(x, w1, b1, w2, b2, labels):
    return ops.cross_entropy(ops.dense(ops.silu(ops.dense(x, w1, b1)), w2, b2), labels)


def mlp_relu(x, w1, b1, w2, b2, labels):
    return ops.cross_entropy(ops.dense(ops.relu(ops.dense(x, w1, b1)), w2, b2), labels)


def conv_block(x, weight, gamma, beta):
    y = ops.conv2d(x, weight, pad_mode="pad", padding=1)
    y = ops.batch_norm(y, ops.zeros((2,)), ops.ones((2,)), gamma, beta, training=True)
    return ops.max_pool2d(ops.relu(y), 2, 2)


def residual_block(x, weight, gamma, beta):
    y = ops.conv2d(x, weight, pad_mode="pad", padding=1)
    return ops.relu(x + ops.batch_norm(y, ops.zeros((2,)), ops.ones((2,)), gamma, beta, training=True))


def heads(x):
    """Two heads of a width of two."""
    return x.reshape((1, 3, 2, 2)).swapaxes(1, 2)


def gpt_block(x, g1, c1, qkv, out, g2, c2, up, down, head, labels):
    q, k, v = ops.split(ops.dense(ops.layer_norm(x, (4,), g1, c1), qkv), 4, -1)
    q, k, v = heads(q), heads(k), heads(v)
    scores = ops.matmul(q, k.swapaxes(-1, -2)) * 0.5**0.5
    scores = ops.masked_fill(scores, ops.triu(ops.ones((3, 3)), 1) > 0, -1e9)
    mixed = ops.matmul(ops.softmax(scores, -1), v).swapaxes(1, 2).reshape((1, 3, 4))
    x = x + ops.dense(mixed, out)
    x = x + ops.dense(ops.gelu(ops.dense(ops.layer_norm(x, (4,), g2, c2), up), approximate="tanh"), down)
    return ops.cross_entropy(ops.dense(x, head).reshape((3, 3)), labels.reshape((3,)))
