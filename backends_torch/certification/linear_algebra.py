"""Products, factorizations and solves."""

import torch
from torch.nn import functional as F

CASES = {
    "matmul": lambda x, y: x @ y,
    "matmul_transposed": lambda x, y: x @ y.T,
    "matmul_broadcast": lambda x, y: x @ y,
    "matmul_four_axes": lambda x, y: x @ y,
    "matmul_vector": lambda x, y: x @ y,
    "bmm": torch.bmm,
    "mv": torch.mv,
    "dot": torch.dot,
    "outer": torch.outer,
    "einsum_matmul": lambda x, y: torch.einsum("ij,jk->ik", x, y),
    "einsum_attention": lambda x, y: torch.einsum("bqhd,bkhd->bhqk", x, y),
    "einsum_trace": lambda x: torch.einsum("ii->", x * x),
    "tensordot": lambda x, y: torch.tensordot(x, y, dims=2),
    "addmm": torch.addmm,
    "baddbmm": torch.baddbmm,
    "linear": F.linear,
    "linear_no_bias": F.linear,
    "linear_three_axes": F.linear,
    "kron": torch.kron,
    "cross": lambda x, y: torch.linalg.cross(x, y),
    "trace": lambda x: (x * x).trace(),
    "cholesky": torch.linalg.cholesky,
    "inverse": torch.linalg.inv,
    "solve": torch.linalg.solve,
    "triangular_solve": lambda x, y: torch.linalg.solve_triangular(x, y, upper=False),
    "determinant": torch.linalg.det,
    "log_determinant": torch.logdet,
    "eigenvalues": lambda x: torch.linalg.eigvalsh((x + x.T) / 2),
    "singular_values": torch.linalg.svdvals,
    "cdist": torch.cdist,
}
