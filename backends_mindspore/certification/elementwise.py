"""Functions of single numbers and binary operators."""

from mindspore import mint, ops


def abs(x):
    return ops.abs(x)


def neg(x):
    return -x


def square(x):
    return ops.square(x)


def sqrt(x):
    return ops.sqrt(x)


def rsqrt(x):
    return ops.rsqrt(x)


def reciprocal(x):
    return 1 / x


def reciprocal__ops(x):
    return ops.reciprocal(x)


def cube(x):
    return x**3


def cube__mint(x):
    return mint.pow(x, 3)


def pow_fraction(x):
    return ops.pow(x, 1.5)


def pow_tensor(x, y):
    return x**y


def exp(x):
    return ops.exp(x)


def exp2(x):
    return ops.exp2(x)


def expm1(x):
    return ops.expm1(x)


def log(x):
    return ops.log(x)


def log2(x):
    return ops.log2(x)


def log10(x):
    return ops.log10(x)


def log1p(x):
    return ops.log1p(x)


def sin(x):
    return ops.sin(x)


def cos(x):
    return ops.cos(x)


def tan(x):
    return ops.tan(x)


def asin(x):
    return ops.asin(x)


def acos(x):
    return ops.acos(x)


def atan(x):
    return ops.atan(x)


def atan2(x, y):
    return ops.atan2(x, y)


def sinh(x):
    return ops.sinh(x)


def cosh(x):
    return ops.cosh(x)


def tanh(x):
    return ops.tanh(x)


def tanh__mint(x):
    return mint.tanh(x)


def asinh(x):
    return ops.asinh(x)


def acosh(x):
    return ops.acosh(x)


def atanh(x):
    return ops.atanh(x)


def erf(x):
    return ops.erf(x)


def erf__mint(x):
    return mint.erf(x)


def erfc(x):
    return ops.erfc(x)


def erfinv(x):
    return ops.erfinv(x)


def lgamma(x):
    return ops.lgamma(x)


def digamma(x):
    return ops.digamma(x)


def sinc(x):
    return ops.sinc(x)


def logit(x):
    return ops.logit(x)


def sign_times(x):
    return ops.sign(x) * x * x


def add(x, y):
    return x + y


def add__mint(x, y):
    return mint.add(x, y)


def add_broadcast(x, y):
    return ops.add(x, y)


def sub_broadcast(x, y):
    return x - y


def mul(x, y):
    return x * y


def mul__mint(x, y):
    return mint.mul(x, y)


def mul_broadcast(x, y):
    return ops.mul(x, y)


def div(x, y):
    return x / y


def div__mint(x, y):
    return mint.div(x, y)


def div_broadcast(x, y):
    return ops.div(x, y)


def maximum(x, y):
    return ops.maximum(x, y)


def maximum__mint(x, y):
    return mint.maximum(x, y)


def minimum(x, y):
    return ops.minimum(x, y)


def clamp(x):
    return ops.clamp(x, -0.7, 0.7)


def clamp__mint(x):
    return mint.clamp(x, -0.7, 0.7)


def clamp__value(x):
    return ops.clip_by_value(x, -0.7, 0.7)


def lerp(x, y, weight):
    return ops.lerp(x, y, weight)


def addcmul(x, y, z):
    return ops.addcmul(x, y, z, 0.5)


def addcdiv(x, y, z):
    return ops.addcdiv(x, y, z, 0.5)


def xlogy(x, y):
    return ops.xlogy(x, y)


def hypot(x, y):
    return ops.hypot(x, y)


def logaddexp(x, y):
    return ops.logaddexp(x, y)


def exp2__mint(x):
    return mint.exp2(x)
