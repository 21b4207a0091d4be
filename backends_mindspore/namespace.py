"""The array functions of :mod:`hessiod.backends.contract` on MindSpore tensors.

Built on ``ops``: several ``mint`` functions have no CPU kernel. Every function can be traced by ``ms.jit``.
"""

import mindspore as ms
from mindspore import ops
from mindspore.scipy.linalg import eigh as scipy_eigh

int64 = ms.int64
float32 = ms.float32
float64 = ms.float64
left_shift, right_shift = ops.LeftShift(), ops.RightShift()  # the functions around them take six times as long to trace


def abs(x):
    return ops.abs(x)


def sqrt(x):
    return ops.sqrt(x)


def pow(x, y):
    return ops.pow(x, y)


def exp(x):
    return ops.exp(x)


def log(x):
    return ops.log(x)


def cos(x):
    return ops.cos(x)


def sin(x):
    return ops.sin(x)


def clip(x, low, high):
    return ops.clamp(x, low, high)


def minimum(x, y):
    return ops.minimum(x, y)


def maximum(x, y):
    return ops.maximum(x, y)


def sum(x):
    return ops.sum(x)


def mean(x):
    return ops.mean(x)


def sum_last(x):
    return ops.sum(x, -1, True)


def amax(x):
    return ops.amax(x, -1, True)


def cumsum(x):
    return ops.cumsum(x, -1)


def arange(n, like):
    return ops.range(0, n, 1)


def stack(arrays):
    return ops.stack(arrays, -1)


def concat(arrays):
    return ops.concat(arrays)


def reshape(x, shape):
    return ops.reshape(x, shape)


def astype(x, dtype):
    return ops.cast(x, dtype)


def bitwise_and(x, y):
    return ops.bitwise_and(x, y)


def bitwise_xor(x, y):
    return ops.bitwise_xor(x, y)


def shift_left(x, n):
    return left_shift(x, ops.scalar_to_tensor(n, x.dtype) if isinstance(n, int) else n)


def shift_right(x, n):
    return right_shift(x, ops.scalar_to_tensor(n, x.dtype) if isinstance(n, int) else n)


def matmul(x, y):
    return ops.matmul(x, y)


def transpose(x):
    return ops.swapaxes(x, -1, -2)


def concat_last(arrays):
    return ops.concat(arrays, -1)


def eye(n, like):
    return ops.eye(n, n, like.dtype)


def trace(x):
    return ops.sum(x * eye(x.shape[-1], x), (-2, -1), True)


def frobenius(x):
    return ops.sqrt(ops.sum(x * x, (-2, -1), True))


def sum_rows(x):
    return ops.sum(x, -2, True)


def spd_inverse(x):
    if len(x.shape) == 2:
        return ops.cholesky_inverse(ops.cholesky(x))
    return ops.stack([spd_inverse(x[i]) for i in range(x.shape[0])])  # cholesky_inverse of a batch is NaN on CPU


def eigh(x):  # eagerly only: there is no way to trace it
    if len(x.shape) == 2:
        return scipy_eigh(x)
    pairs = [eigh(x[i]) for i in range(x.shape[0])]
    return ops.stack([values for values, _ in pairs]), ops.stack([vectors for _, vectors in pairs])
