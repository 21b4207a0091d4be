"""Optimizers for MindSpore."""

from hessiod.backends.registry import require

require("mindspore", extra="mindspore")

from hessiod.backends.logs import TensorBoard  # noqa: E402
from hessiod.backends_mindspore.callbacks import Checkpoint, Diagnostics  # noqa: E402
from hessiod.backends_mindspore.derivatives.functions import (  # noqa: E402
    gauss_newton_diagonal,
    hessian_diagonal,
    hessian_trace,
    hvp,
)
from hessiod.backends_mindspore.kronecker.kfac import KFAC  # noqa: E402
from hessiod.backends_mindspore.kronecker.mixup import RunningMixup  # noqa: E402
from hessiod.backends_mindspore.kronecker.spngd import SPNGD  # noqa: E402
from hessiod.backends_mindspore.kronecker.thor import THOR  # noqa: E402
from hessiod.backends_mindspore.logs import scalars  # noqa: E402
from hessiod.backends_mindspore.optimizers import (  # noqa: E402
    SGD,
    AdaHessian,
    AdamW,
    Apollo,
    ApolloW,
    DiagonalNewton,
    Sophia,
    SophiaG,
    SophiaH,
)
from hessiod.backends_mindspore.train_step import TrainStep  # noqa: E402

__all__ = [
    "KFAC",
    "SGD",
    "SPNGD",
    "THOR",
    "AdaHessian",
    "AdamW",
    "Apollo",
    "ApolloW",
    "Checkpoint",
    "DiagonalNewton",
    "Diagnostics",
    "RunningMixup",
    "Sophia",
    "SophiaG",
    "SophiaH",
    "TensorBoard",
    "TrainStep",
    "gauss_newton_diagonal",
    "hessian_diagonal",
    "hessian_trace",
    "hvp",
    "scalars",
]
