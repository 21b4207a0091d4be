"""Second-order optimizers that behave the same on PyTorch and on MindSpore.

    from hessiod.torch import SophiaG            # a torch.optim.Optimizer
    from hessiod.mindspore import SophiaG        # a mindspore.nn.Optimizer

``import hessiod`` loads neither framework. The command ``hessiod backends`` says what can be used here.
"""

from importlib.metadata import PackageNotFoundError, version

from hessiod.core import RULES, BackendUnavailable, HessiodError, InvalidArgument, InvalidState, NonFinite

try:
    __version__ = version("hessiod")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "RULES",
    "BackendUnavailable",
    "HessiodError",
    "InvalidArgument",
    "InvalidState",
    "NonFinite",
    "__version__",
]
