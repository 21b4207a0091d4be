"""Sums, means, extremes, norms and running sums."""

from mindspore import mint, ops


def sum_all(x):
    return (x * x).sum()


def sum_all__mint(x):
    return mint.sum(x * x)


def sum_axis(x):
    return (x * x).sum(1)


def sum_axis__ops(x):
    return ops.sum(x * x, 1)


def sum_axis__mint(x):
    return mint.sum(x * x, 1)


def sum_keepdims(x):
    return (x * x).sum(1, keepdims=True)


def sum_two_axes(x):
    return (x * x).sum((0, 2))


def mean_all(x):
    return (x * x).mean()


def mean_axis(x):
    return ops.mean(x * x, -1)


def mean_axis__mint(x):
    return mint.mean(x * x, -1)


def mean_keepdims(x):
    return ops.mean(x * x, -1, True)


def prod_all(x):
    return ops.prod(x)


def prod_axis(x):
    return ops.prod(x, 1)


def prod_axis__mint(x):
    return mint.prod(x, 1)


def amax(x):
    return ops.amax(x * x * x, 1)


def amax__mint(x):
    return mint.amax(x * x * x, 1)


def amax_keepdims(x):
    return ops.amax(x * x * x, 1, True)


def amin(x):
    return ops.amin(x * x * x, 0)


def max_all(x):
    return (x * x * x).max()


def max_all__mint(x):
    return mint.max(x * x * x)


def max_axis(x):
    return ops.max(x * x * x, 1)[0]


def max_axis__method(x):
    return (x * x * x).max(1)


def max_axis__mint(x):
    return mint.max(x * x * x, 1)[0]


def min_axis(x):
    return ops.min(x * x * x, 1)[0]


def logsumexp(x):
    return ops.logsumexp(x, 1)


def logsumexp__mint(x):
    return mint.logsumexp(x, 1)


def logsumexp_keepdims(x):
    return ops.logsumexp(x, 1, True)


def var(x):
    return ops.var(x, 1, 1)


def var__method(x):
    return x.var(1, 1)


def var__mint(x):
    return mint.var(x, 1)


def var_biased(x):
    return ops.var(x, 1, 0)


def std(x):
    return ops.std(x, 1, 1)


def std__mint(x):
    return mint.std(x, 1)


def std_keepdims(x):
    return ops.std(x, 1, 0, True)


def norm(x):
    return ops.norm(x)


def norm__mint(x):
    return mint.norm(x)


def norm_axis(x):
    return ops.norm(x, dim=1)


def norm_axis__mint(x):
    return mint.norm(x, dim=1)


def norm_one(x):
    return ops.norm(x * x * x, 1, dim=1)


def norm_three(x):
    return ops.norm(x, 3, dim=1)


def cumsum(x):
    return ops.cumsum(x * x, 1)


def cumsum__mint(x):
    return mint.cumsum(x * x, 1)


def cumprod(x):
    return ops.cumprod(x, 1)


def logcumsumexp(x):
    return ops.logcumsumexp(x, 1)


def cummax(x):
    return ops.cummax(x * x * x, 1)[0]


def sort(x):
    return ops.sort(x * x * x, 1)[0]


def sort__mint(x):
    return mint.sort(x * x * x, dim=1)[0]


def topk(x):
    return ops.topk(x * x * x, 2, 1)[0]


def topk__mint(x):
    return mint.topk(x * x * x, 2, 1)[0]


def median(x):
    return ops.median(x * x * x, 1)[0]
