"""Products, factorizations and solves."""

import mindspore.scipy as scipy
from mindspore import mint, nn, ops


def matmul(x, y):
    return x @ y


def matmul__ops(x, y):
    return ops.matmul(x, y)


def matmul__mint(x, y):
    return mint.matmul(x, y)


def matmul__mm(x, y):
    return ops.mm(x, y)


def matmul_transposed(x, y):
    return ops.matmul(x, y.T)


def matmul_transposed__primitive(x, y):
    return ops.MatMul(transpose_b=True)(x, y)


def matmul_broadcast(x, y):
    return ops.matmul(x, y)


def matmul_broadcast__mint(x, y):
    return mint.matmul(x, y)


def matmul_four_axes(x, y):
    return ops.matmul(x, y)


def matmul_four_axes__batch(x, y):
    return ops.BatchMatMul()(x, y)


def matmul_four_axes__mint(x, y):
    return mint.matmul(x, y)


def matmul_vector(x, y):
    return ops.matmul(x, y)


def bmm(x, y):
    return ops.bmm(x, y)


def bmm__mint(x, y):
    return mint.bmm(x, y)


def mv(x, y):
    return ops.mv(x, y)


def dot(x, y):
    return ops.tensor_dot(x, y, 1)


def dot__mint(x, y):
    return mint.dot(x, y)


def outer(x, y):
    return ops.outer(x, y)


def outer__mint(x, y):
    return mint.outer(x, y)


def einsum_matmul(x, y):
    return ops.einsum("ij,jk->ik", x, y)


def einsum_matmul__mint(x, y):
    return mint.einsum("ij,jk->ik", x, y)


def einsum_attention(x, y):
    return ops.einsum("bqhd,bkhd->bhqk", x, y)


def einsum_attention__mint(x, y):
    return mint.einsum("bqhd,bkhd->bhqk", x, y)


def einsum_trace(x):
    return ops.einsum("ii->", x * x)


def tensordot(x, y):
    return ops.tensor_dot(x, y, 2)


def addmm(x, y, z):
    return ops.addmm(x, y, z)


def addmm__mint(x, y, z):
    return mint.addmm(x, y, z)


def baddbmm(x, y, z):
    return ops.baddbmm(x, y, z)


def baddbmm__mint(x, y, z):
    return mint.baddbmm(x, y, z)


def linear(x, weight, bias):
    return ops.dense(x, weight, bias)


def linear__mint(x, weight, bias):
    return mint.nn.functional.linear(x, weight, bias)


def linear_no_bias(x, weight):
    return ops.dense(x, weight)


def linear_three_axes(x, weight, bias):
    return ops.dense(x, weight, bias)


def linear_three_axes__mint(x, weight, bias):
    return mint.nn.functional.linear(x, weight, bias)


def kron(x, y):
    return ops.kron(x, y)


def cross(x, y):
    return ops.cross(x, y, 1)


def trace(x):
    return ops.trace(x * x)


def cholesky(x):
    return ops.cholesky(x)


def inverse(x):
    return ops.inverse(x)


def solve(x, y):
    return ops.matmul(ops.inverse(x), y)


def triangular_solve(x, y):
    return scipy.linalg.solve_triangular(x, y, lower=True)


def determinant(x):
    return ops.det(x)


def log_determinant(x):
    return ops.slogdet(x)[1]


def eigenvalues(x):
    return scipy.linalg.eigh((x + x.T) / 2, eigvals_only=True)


def singular_values(x):
    return ops.svd(x, compute_uv=False)


def cdist(x, y):
    return ops.cdist(x, y)


CELLS = {
    "linear__nn": lambda: nn.Dense(4, 2),
    "linear_no_bias__nn": lambda: nn.Dense(4, 2, has_bias=False),
    "linear_three_axes__nn": lambda: nn.Dense(4, 2),
    "linear__mint_nn": lambda: mint.nn.Linear(4, 2),
}
