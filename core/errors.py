"""The errors hessiod raises: each message names what was found, what was expected and the way out."""

from __future__ import annotations


class HessiodError(Exception):
    """Base of every error that hessiod raises on purpose. The command line prints it in one line and exits with 2."""


class InvalidArgument(HessiodError, ValueError):
    """An argument, a hyperparameter or a file has a value that cannot be used."""


class InvalidState(HessiodError, RuntimeError):
    """A call came at a moment when it cannot be answered: no gradient yet, curvature due, state of another rule."""


class NonFinite(HessiodError, ArithmeticError):
    """A gradient or a curvature estimate holds NaN or infinity; parameters and state were left as they were."""


class BackendUnavailable(HessiodError, ImportError):
    """A backend was asked for by name and cannot be used here."""
