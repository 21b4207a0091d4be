"""The conformance suite says whether a backend, on a device, is right.

================  ================================================================
``suite``         plans the checks of every level and runs them over backends
``check``         what can be run on a backend: a check, its findings, its rows
``selection``     checks by level and pattern; rows that are known to fail
``isolation``     runs checks in a ``worker`` process, which may hang or crash
``side_by_side``  several workers at the same time
``backend_suite`` the suite as a pytest class, for the tests of a backend
``functions``     level 0: the namespace's functions against numpy, with their ``arguments``
``kernels``       level 1: kernels against published formulas and each other
``example``       a call of a kernel; ``expected`` is what it may give, ``measure`` how far off it is, in ULP
``drawn``         inputs and hyperparameters that hypothesis ``draws``
``formats``       floating-point formats, those that numpy lacks too
``entry``         the worst entry of a result, with its inputs
``problems``      what level 4 trains, on data that ships with the suite
``derivatives``   level 2: gradients and Hessian products of ``objectives`` against golden values
``estimators``    level 3: probes, targets, estimates, the Kronecker preconditioner
``factored``      level 3: each function of the Kronecker methods against its formula
``matrices``      level 3: the Kronecker kernels, run in whole by backends without functions
``theorems``      level 3: what the papers prove about Apollo, Sophia and AdaHessian
``trajectories``  level 4: training ``runs`` against golden losses and each other
``checkpoints``   level 5: runs that move between backends against those that do not
``processes``     level 6: two processes against one; ``group`` starts them, ``ranks`` is what each runs
``enclosure``     which results a faithful evaluation may have
``formulas``      the published formulas in extended precision
``inputs``        arrays that kernels find hard
``mutation``      changes every kernel in turn and sees whether level 1 notices; ``source_mutation``, level 3
``result``        header, rows and digest of a run
``matrix``        the rows laid out by level, subject and backend, and counted
``report``        a result as JSON, Markdown and HTML
``verify``        a report read back: form, digest, set of cases
``compare``       what changed between two reports
================  ================================================================
"""

from typing import Any

__all__ = ["BackendSuite"]


def __getattr__(name: str) -> Any:
    """``BackendSuite`` on demand: it needs pytest, which a run of the suite does not."""
    if name == "BackendSuite":
        from hessiod.conformance.backend_suite import BackendSuite

        return BackendSuite
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
