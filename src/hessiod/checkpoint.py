"""State that moves: a model and its optimizer in one file, written on one framework and taken up on any.

    from hessiod import checkpoint
    checkpoint.save("run.safetensors", model, optimizer)          # torch
    checkpoint.load("run.safetensors", net, optimizer)            # MindSpore; the run goes on

Only the framework of the given model is loaded. docs/checkpoint-format.md describes the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hessiod.backends.checkpoint import Loaded, Names
from hessiod.core.errors import InvalidArgument

_ROOTS = {"torch": "Module", "mindspore": "Cell"}
"""What a model is an instance of, by framework."""


def framework_of(model: Any) -> str:
    """The framework of a model, which is imported already."""
    for base in type(model).__mro__:
        framework = base.__module__.partition(".")[0]
        if _ROOTS.get(framework) == base.__name__:
            return framework
    raise InvalidArgument(
        f"model: found {type(model).__name__}, expected a torch.nn.Module or a mindspore.nn.Cell; give the model itself"
    )


def _of(model: Any) -> Any:
    return import_module(f"hessiod.backends_{framework_of(model)}.checkpoint")


def save(path: str | Path, model: Any, optimizer: Any = None, extra: Any = None, names: Names = None) -> None:
    """Write a model and its optimizer, between two steps; the old file is there until the new one is, whole.

    Arrays are written one by one: beyond the model, memory holds at most one of them.

    Args:
        path: the file.
        model: a ``torch.nn.Module`` or a ``mindspore.nn.Cell``. Parameters and buffers are written as they are, in
            float32, bfloat16 or whatever they have. Shared ones are written once.
        optimizer: one of ``hessiod.torch`` or ``hessiod.mindspore``, or None for the model alone.
        extra: whatever JSON can hold, given back by :func:`load`: the epoch, a scheduler's ``state_dict()``.
        names: for arrays that are called something else in the file: a mapping from their names in the model, or a
            function. Standard layers (embedding_table, gamma, moving_mean, ...) need none.

    Raises:
        InvalidArgument: for what cannot be saved, by name; the old file stays.
        InvalidState: between ``update_curvature`` and its step.

    >>> import tempfile, torch
    >>> from hessiod.torch import AdamW
    >>> model = torch.nn.Linear(2, 1)
    >>> opt = AdamW(model.parameters(), lr=0.1)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> _ = opt.step()
    >>> other = torch.nn.Linear(2, 1)
    >>> resumed = AdamW(other.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder + "/run.safetensors", model, opt, extra={"epoch": 3})
    ...     loaded = load(folder + "/run.safetensors", other, resumed)
    >>> loaded.extra, loaded.step, resumed.steps, bool((other.weight == model.weight).all())
    ({'epoch': 3}, 1, 1, True)
    """
    _of(model).save(path, model, optimizer, extra, names)


def load(path: str | Path, model: Any, optimizer: Any = None, names: Names = None, allow: Sequence[str] = ()) -> Loaded:
    """Take up a file of :func:`save`, or raise and change nothing.

    Everything is checked before anything is written: the SHA-256 of the whole file, every name, shape and dtype, the
    rule, its hyperparameters and settings, and the order of the parameters where it numbers probes. Torch takes the
    learning rate of the coming step from the file, as with ``load_state_dict``. MindSpore cannot change that of an
    optimizer and compares it. A torch scheduler is the caller's: ``LambdaLR(opt, f, last_epoch=loaded.step - 1)``, or
    its own state in ``extra``.

    Args:
        path: the file.
        model: as in :func:`save`. On MindSpore, graphs that have run already see the new values too.
        optimizer: as in :func:`save`; None loads the model alone.
        names: as in :func:`save`.
        allow: names of settings and hyperparameters in which the optimizer may differ from the file; it keeps its own.

    Returns:
        :class:`~hessiod.backends.checkpoint.state.Loaded`: ``step``, ``extra``, and the file's ``document``.

    Raises:
        InvalidArgument: for a file that is torn, damaged, foreign or newer, or does not fit, with every difference.
    """
    return _of(model).load(path, model, optimizer, names, allow)
