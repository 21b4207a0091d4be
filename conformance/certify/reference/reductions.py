"""Sums, means, extremes, norms and running sums."""

import jax.numpy as jnp


def columns(x, function):
    """A function of the running lists of a matrix's columns, side by side."""
    return jnp.stack([function(x[:, : place + 1]) for place in range(x.shape[1])], 1)


def variance(x, less=1):
    """Over the last axis, with n - less in the denominator."""
    mean = x.sum(1, keepdims=True) / x.shape[1]
    return ((x - mean) ** 2).sum(1) / (x.shape[1] - less)


def picked(x, choose):
    """Each row's entries at the places that ``choose`` names."""
    return jnp.stack([row[choose(row)] for row in x])


CASES = {
    "sum_all": lambda x: jnp.vdot(x, x),
    "sum_axis": lambda x: jnp.stack([row @ row for row in x]),
    "sum_keepdims": lambda x: jnp.stack([row @ row for row in x])[:, None],
    "sum_two_axes": lambda x: jnp.einsum("ijk,ijk->j", x, x),
    "mean_all": lambda x: jnp.vdot(x, x) / 12,
    "mean_axis": lambda x: jnp.stack([row @ row for row in x]) / 4,
    "mean_keepdims": lambda x: jnp.stack([row @ row for row in x])[:, None] / 4,
    "prod_all": lambda x: x[0] * x[1] * x[2] * x[3] * x[4],
    "prod_axis": lambda x: x[:, 0] * x[:, 1] * x[:, 2] * x[:, 3],
    "amax": lambda x: picked(x, jnp.argmax) ** 3,
    "amax_keepdims": lambda x: picked(x, jnp.argmax)[:, None] ** 3,
    "amin": lambda x: picked(x.T, jnp.argmin) ** 3,
    "max_all": lambda x: x.reshape(-1)[jnp.argmax(x)] ** 3,
    "max_axis": lambda x: picked(x, jnp.argmax) ** 3,
    "min_axis": lambda x: picked(x, jnp.argmin) ** 3,
    "logsumexp": lambda x: jnp.log(jnp.exp(x).sum(1)),
    "logsumexp_keepdims": lambda x: jnp.log(jnp.exp(x).sum(1))[:, None],
    "var": variance,
    "var_biased": lambda x: variance(x, 0),
    "std": lambda x: jnp.sqrt(variance(x)),
    "std_keepdims": lambda x: jnp.sqrt(variance(x, 0))[:, None],
    "norm": lambda x: jnp.sqrt(jnp.vdot(x, x)),
    "norm_axis": lambda x: jnp.sqrt((x * x).sum(1)),
    "norm_one": lambda x: jnp.where(x > 0, x**3, -(x**3)).sum(1),
    "norm_three": lambda x: (x**3).sum(1) ** (1 / 3),
    "cumsum": lambda x: columns(x, lambda part: (part * part).sum(1)),
    "cumprod": lambda x: columns(x, lambda part: jnp.prod(part, 1)),
    "logcumsumexp": lambda x: columns(x, lambda part: jnp.log(jnp.exp(part).sum(1))),
    "cummax": lambda x: columns(x, lambda part: picked(part, jnp.argmax) ** 3),
    "sort": lambda x: picked(x, jnp.argsort) ** 3,
    "topk": lambda x: picked(x, lambda row: jnp.argsort(-row)[:2]) ** 3,
    "median": lambda x: picked(x, lambda row: jnp.argsort(row)[2]) ** 3,
}
