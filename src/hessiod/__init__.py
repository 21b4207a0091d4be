"""Second-order optimizers that behave the same on PyTorch and on MindSpore.

    from hessiod.torch import SophiaG            # a torch.optim.Optimizer
    from hessiod.mindspore import SophiaG        # a mindspore.nn.Optimizer

``import hessiod`` loads neither framework. The command ``hessiod backends`` says what can be used here.
"""

from hessiod.core import RULES, BackendUnavailable, HessiodError, InvalidArgument, InvalidState, NonFinite

__all__ = [
    "RULES",
    "BackendUnavailable",
    "HessiodError",
    "InvalidArgument",
    "InvalidState",
    "NonFinite",
    "__version__",
]


def __getattr__(name: str) -> str:
    """``__version__``, looked up in the distribution's records when it is asked for, which takes milliseconds."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hessiod")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
