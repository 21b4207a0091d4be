"""Update mathematics, written once: rules, curvature estimators and the random generator.

Nothing here imports a framework. Array functions take a namespace ``xp`` as their first argument and touch arrays only
through it and through operators, so the same source runs eagerly, traced and compiled on every backend.

==================  =====================================================================
``rule``            the form of a rule: host scalars in doubles, pure kernels on arrays
``sophia``...       one optimizer a file, in the notation of its paper
``kronecker``       the Kronecker preconditioner behind K-FAC, SP-NGD and THOR
``curvature``       estimators of the Hessian's diagonal
``clipping``        a bound to the norm of all gradients
``likelihood``      targets sampled from the model's own prediction
``philox``          the counter-based generator behind probes, targets, weights, batches
``host``            Python's own numbers as an ``xp``
==================  =====================================================================
"""

from hessiod.core.errors import BackendUnavailable, HessiodError, InvalidArgument, InvalidState, NonFinite
from hessiod.core.rule import Hyperparameter, Kernel, Rule
from hessiod.core.rules import RULES

__all__ = [
    "RULES",
    "BackendUnavailable",
    "HessiodError",
    "Hyperparameter",
    "InvalidArgument",
    "InvalidState",
    "Kernel",
    "NonFinite",
    "Rule",
]
