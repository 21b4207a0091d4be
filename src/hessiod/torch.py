"""Optimizers and curvature for PyTorch."""

from hessiod.backends.registry import require

require("torch", extra="torch")

from hessiod.backends.logs import TensorBoard  # noqa: E402
from hessiod.backends_torch.derivatives.functions import (  # noqa: E402
    gauss_newton_diagonal,
    hessian_diagonal,
    hessian_trace,
    hvp,
)
from hessiod.backends_torch.hook import CurvatureHook  # noqa: E402
from hessiod.backends_torch.logs import log_diagnostics, scalars  # noqa: E402
from hessiod.backends_torch.optimizers import (  # noqa: E402
    KFAC,
    SGD,
    SPNGD,
    THOR,
    AdaHessian,
    AdamW,
    Apollo,
    ApolloW,
    DiagonalNewton,
    RunningMixup,
    Sophia,
    SophiaG,
    SophiaH,
)

__all__ = [
    "AdaHessian",
    "AdamW",
    "Apollo",
    "ApolloW",
    "CurvatureHook",
    "DiagonalNewton",
    "KFAC",
    "RunningMixup",
    "SGD",
    "SPNGD",
    "Sophia",
    "SophiaG",
    "SophiaH",
    "THOR",
    "TensorBoard",
    "gauss_newton_diagonal",
    "hessian_diagonal",
    "hessian_trace",
    "hvp",
    "log_diagnostics",
    "scalars",
]
