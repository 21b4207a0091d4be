"""Functions of single numbers, activations, binary operators."""

import jax
import jax.numpy as jnp
from jax.scipy import special

SQRT2 = 2.0**0.5


def sigmoid(x):
    """``1 / (1 + exp(-x))``."""
    return 1 / (1 + jnp.exp(-x))


def softplus(x):
    """``log(1 + exp(x))``."""
    return jnp.logaddexp(x, 0.0)


def elu(x, alpha=1.0):
    """``alpha * (exp(x) - 1)`` for negative x."""
    return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0.0, x)))


def selu(x):
    """Klambauer et al. 2017, with their two constants."""
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def relu6(x):
    """Cut off at 0 and 6."""
    return jnp.where(x < 0, 0.0, jnp.where(x > 6, 6.0, x))


def gelu_tanh(x):
    """Hendrycks and Gimpel's approximation."""
    return 0.5 * x * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (x + 0.044715 * x**3)))


def softmax(x, axis=-1):
    """``exp(x) / sum exp(x)``."""
    return jnp.exp(x) / jnp.exp(x).sum(axis, keepdims=True)


def log_softmax(x, axis=-1):
    """``x - log sum exp(x)``."""
    return x - jnp.log(jnp.exp(x).sum(axis, keepdims=True))


CASES = {
    "abs": lambda x: jnp.where(x > 0, x, -x),
    "neg": lambda x: 0 - x,
    "square": lambda x: x * x,
    "sqrt": lambda x: jnp.exp(jnp.log(x) / 2),
    "rsqrt": lambda x: jnp.exp(-jnp.log(x) / 2),
    "reciprocal": lambda x: jnp.exp(-jnp.log(x)),
    "cube": lambda x: x * x * x,
    "pow_fraction": lambda x: x * jnp.sqrt(x),
    "pow_tensor": lambda x, y: jnp.exp(y * jnp.log(x)),
    "exp": jnp.exp,
    "exp2": lambda x: jnp.exp(x * jnp.log(2.0)),
    "expm1": lambda x: jnp.exp(x) - 1,
    "log": jnp.log,
    "log2": lambda x: jnp.log(x) / jnp.log(2.0),
    "log10": lambda x: jnp.log(x) / jnp.log(10.0),
    "log1p": lambda x: jnp.log(1 + x),
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": lambda x: jnp.sin(x) / jnp.cos(x),
    "asin": lambda x: jnp.arctan(x / jnp.sqrt(1 - x * x)),
    "acos": lambda x: jnp.pi / 2 - jnp.arctan(x / jnp.sqrt(1 - x * x)),
    "atan": jnp.arctan,
    "atan2": lambda x, y: jnp.arctan(x / y),
    "sinh": lambda x: (jnp.exp(x) - jnp.exp(-x)) / 2,
    "cosh": lambda x: (jnp.exp(x) + jnp.exp(-x)) / 2,
    "tanh": lambda x: 2 * sigmoid(2 * x) - 1,
    "asinh": lambda x: jnp.log(x + jnp.sqrt(x * x + 1)),
    "acosh": lambda x: jnp.log(x + jnp.sqrt(x * x - 1)),
    "atanh": lambda x: (jnp.log(1 + x) - jnp.log(1 - x)) / 2,
    "erf": special.erf,
    "erfc": lambda x: 1 - special.erf(x),
    "erfinv": special.erfinv,
    "lgamma": special.gammaln,
    "digamma": special.digamma,
    "sinc": lambda x: jnp.sin(jnp.pi * x) / (jnp.pi * x),
    "logit": lambda x: jnp.log(x) - jnp.log(1 - x),
    "sign_times": lambda x: jnp.where(x > 0, x * x, -x * x),
    "sigmoid": sigmoid,
    "log_sigmoid": lambda x: -softplus(-x),
    "softplus": softplus,
    "softplus_beta": lambda x: softplus(2 * x) / 2,
    "relu": lambda x: jnp.where(x > 0, x, 0.0),
    "relu6": relu6,
    "leaky_relu": lambda x: jnp.where(x > 0, x, 0.2 * x),
    "prelu": lambda x, weight: jnp.where(x > 0, x, weight[None, :, None] * x),
    "elu": elu,
    "elu_alpha": lambda x: elu(x, 0.5),
    "celu": lambda x: elu(x / 2) * 2,
    "selu": selu,
    "gelu": lambda x: 0.5 * x * (1 + special.erf(x / SQRT2)),
    "gelu_tanh": gelu_tanh,
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * jnp.tanh(softplus(x)),
    "hardswish": lambda x: x * relu6(x + 3) / 6,
    "hardsigmoid": lambda x: relu6(x + 3) / 6,
    "hardtanh": lambda x: jnp.where(x < -1, -1.0, jnp.where(x > 1, 1.0, x)),
    "softsign": lambda x: x / (1 + jnp.where(x > 0, x, -x)),
    "tanhshrink": lambda x: x - jnp.tanh(x),
    "softshrink": lambda x: jnp.where(x > 0.5, x - 0.5, jnp.where(x < -0.5, x + 0.5, 0.0)),
    "hardshrink": lambda x: jnp.where((x > 0.5) | (x < -0.5), x, 0.0),
    "threshold": lambda x: jnp.where(x > 0.1, x, -2.0),
    "glu": lambda x: x[..., :2] * sigmoid(x[..., 2:]),
    "softmax": softmax,
    "softmax_first_axis": lambda x: softmax(x, 0),
    "log_softmax": log_softmax,
    "softmin": lambda x: softmax(-x),
    "add": lambda x, y: y + x,
    "add_broadcast": lambda x, y: jnp.stack([row + y for row in x]),
    "sub_broadcast": lambda x, y: jnp.stack([x[:, 0] - column for column in y.T], 1),
    "mul": lambda x, y: y * x,
    "mul_broadcast": lambda x, y: jnp.stack([row * y for row in x]),
    "div": lambda x, y: x * y**-1.0,
    "div_broadcast": lambda x, y: jnp.stack([column / y[:, 0] for column in x.T], 1),
    "maximum": lambda x, y: jnp.where(x > y, x, y),
    "minimum": lambda x, y: jnp.where(x < y, x, y),
    "clamp": lambda x: jnp.where(x < -0.7, -0.7, jnp.where(x > 0.7, 0.7, x)),
    "lerp": lambda x, y, weight: (1 - weight) * x + weight * y,
    "addcmul": lambda x, y, z: x + y * z / 2,
    "addcdiv": lambda x, y, z: x + y / z / 2,
    "xlogy": lambda x, y: x * jnp.log(y),
    "hypot": lambda x, y: jnp.sqrt(x * x + y * y),
    "logaddexp": lambda x, y: jax.nn.logsumexp(jnp.stack([x, y]), 0),
}
