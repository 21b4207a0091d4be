"""Products, factorizations and solves."""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

CASES = {
    "matmul": lambda x, y: jnp.einsum("ij,jk->ik", x, y),
    "matmul_transposed": lambda x, y: jnp.einsum("ij,kj->ik", x, y),
    "matmul_broadcast": lambda x, y: jnp.einsum("bij,jk->bik", x, y),
    "matmul_four_axes": lambda x, y: jnp.einsum("abij,abjk->abik", x, y),
    "matmul_vector": lambda x, y: (x * y).sum(1),
    "bmm": lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
    "mv": lambda x, y: (x * y).sum(1),
    "dot": lambda x, y: (x * y).sum(),
    "outer": lambda x, y: x[:, None] * y[None],
    "einsum_matmul": lambda x, y: x @ y,
    "einsum_attention": lambda x, y: x.transpose(0, 2, 1, 3) @ y.transpose(0, 2, 3, 1),
    "einsum_trace": lambda x: x[0, 0] ** 2 + x[1, 1] ** 2 + x[2, 2] ** 2,
    "tensordot": lambda x, y: x.reshape(3, 4) @ y.reshape(4, 4),
    "addmm": lambda x, y, z: x + y @ z,
    "baddbmm": lambda x, y, z: x + y @ z,
    "linear": lambda x, weight, bias: x @ weight.T + bias,
    "linear_no_bias": lambda x, weight: x @ weight.T,
    "linear_three_axes": lambda x, weight, bias: jnp.einsum("bij,kj->bik", x, weight) + bias,
    "kron": lambda x, y: jnp.einsum("ij,kl->ikjl", x, y).reshape(4, 6),
    "cross": jnp.cross,
    "trace": lambda x: x[0, 0] ** 2 + x[1, 1] ** 2 + x[2, 2] ** 2,
    "cholesky": lambda x: jnp.linalg.cholesky(x),
    "inverse": jnp.linalg.inv,
    "solve": lambda x, y: jnp.linalg.inv(x) @ y,
    "triangular_solve": lambda x, y: solve_triangular(x, y, lower=True),
    "determinant": jnp.linalg.det,
    "log_determinant": lambda x: jnp.log(jnp.linalg.det(x)),
    "eigenvalues": lambda x: jnp.linalg.eigvalsh((x + x.T) / 2),
    "singular_values": lambda x: jnp.sqrt(jnp.linalg.eigvalsh(x.T @ x)[::-1]),
    "cdist": lambda x, y: jnp.sqrt(((x[:, None] - y[None]) ** 2).sum(-1)),
}
