"""What a backend is: a namespace of array functions, a way in and out of its arrays, and the routes that run kernels.

An implementer writes one module of array functions and one object that satisfies :class:`Backend`, and announces the
object under the entry-point group ``hessiod.backends``::

    [project.entry-points."hessiod.backends"]
    mine = "my_package.hessiod_backend:BACKEND"

``hessiod backends`` then lists it, and ``hessiod conformance --backend mine`` says whether it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Kernel

if TYPE_CHECKING:  # hessiod backends answers without numpy
    import numpy as np

    from hessiod.backends.training.trainer import Trainer

NAMESPACE: Mapping[str, str] = {
    "int64": "the dtype",
    "float32": "the dtype",
    "float64": "the dtype",
    "abs": "abs(x)",
    "sqrt": "sqrt(x), correctly rounded",
    "pow": "pow(x, y) of non-negative x, y a scalar; within 2 ULP",
    "exp": "exp(x)",
    "log": "log(x), natural; called in float64",
    "cos": "cos(x); called in float64",
    "sin": "sin(x); called in float64",
    "clip": "clip(x, low, high) with Python floats for the bounds",
    "minimum": "minimum(x, y), y an array or a scalar",
    "maximum": "maximum(x, y), y an array or a scalar",
    "sum": "sum(x) over all entries, a 0-d array; 0 for an empty x",
    "mean": "mean(x) over all entries, a 0-d array",
    "sum_last": "sum_last(x): over the last axis, which stays with length 1",
    "amax": "amax(x): the maximum over the last axis, which stays with length 1",
    "cumsum": "cumsum(x) along the last axis",
    "arange": "arange(n, like): 0 to n-1 in int64, on the device of `like`",
    "stack": "stack(arrays) along a new last axis",
    "concat": "concat(arrays) of 1-D arrays",
    "reshape": "reshape(x, shape)",
    "astype": "astype(x, dtype): dtype one of the three above or some array's .dtype; bool becomes 0 and 1",
    "bitwise_and": "bitwise_and(x, y) of int64, y an array or an int below 2^32",
    "bitwise_xor": "bitwise_xor(x, y) of int64, y an array or an int below 2^32",
    "shift_left": "shift_left(x, n) of int64",
    "shift_right": "shift_right(x, n) of non-negative int64, n an int or an array that broadcasts",
}
"""The names core/ calls on ``xp``. Arrays also need + - * / and comparisons with arrays and scalars, unary minus,
``.shape``, ``.dtype`` and basic slicing. No function changes
its arguments. NaN and infinity never get here: adapters refuse them before a kernel runs."""


LINEAR_ALGEBRA: Mapping[str, str] = {
    "matmul": "matmul(x, y): [..., n, k] times [..., k, m]; leading axes broadcast",
    "transpose": "transpose(x): the last two axes change places",
    "concat_last": "concat_last(arrays) along the last axis",
    "eye": "eye(n, like): the identity, of the dtype and on the device of `like`",
    "trace": "trace(x): of the last two axes, which stay with length 1",
    "frobenius": "frobenius(x): the root of the sum of squares over the last two axes, which stay with length 1",
    "sum_rows": "sum_rows(x): over the last axis but one, which stays with length 1",
    "spd_inverse": "spd_inverse(x): symmetric inverse through Cholesky; not finite, or a RuntimeError, where x is not "
    "positive definite",
    "eigh": "eigh(x): ascending eigenvalues [..., d] and eigenvectors in columns [..., d, d] of a symmetric x",
}
"""Further names, which the Kronecker methods (core/kronecker) call. A backend has all of them or none: without them it
has no K-FAC, SP-NGD and THOR, and everything else still runs."""


HALF_PRECISION = ("bfloat16", "float16")
STORED = ("param", "grad", "estimate")
"""The arrays of a kernel that have a half-precision parameter's dtype; state and arithmetic are in float32."""


@dataclass(frozen=True)
class Route:
    """One way in which a backend executes a kernel: eagerly, traced, compiled.

    ``run(function, arrays, scalars)`` calls ``function(xp, *arrays, **scalars)``, with native arrays and the scalars
    rounded once to the arrays' dtype, and returns a tuple of native arrays. ``contracts`` says that the route may fuse
    a multiplication and an addition into one rounding, so that its results may differ from the others' by an ULP per
    operation. ``flushes`` says that it may put zero in the place of denormal numbers,
    ``compiles`` that each new kernel costs seconds, ``specializes`` that each new shape costs them again, so that the
    conformance suite gives it one.

    ``half(kernel, arrays, values, dtype)`` is how a step moves parameters in half precision: ``arrays`` are native
    ones in float32 by their names in ``kernel.operands``, ``values`` the hyperparameters, ``dtype`` one of
    :data:`HALF_PRECISION`. Those named in :data:`STORED` hold numbers of that dtype and are first put into it, as they
    lie in a user's memory. It returns ``kernel.results`` in float32, the parameter after it was rounded to the dtype,
    once. None for a route that no such step takes.
    """

    name: str
    run: Callable[[Callable[..., Any], Sequence[Any], Mapping[str, float]], tuple[Any, ...]]
    contracts: bool = False
    flushes: bool = False
    compiles: bool = False
    specializes: bool = False
    half: Callable[[Kernel, Mapping[str, Any], Mapping[str, float], str], tuple[Any, ...]] | None = None


class Autodiff(Protocol):
    """Derivatives of ``function(xp, weights, data)``, a scalar worked out from two lists of native arrays."""

    def value_and_gradients(
        self, function: Callable[..., Any], weights: Sequence[Any], data: Sequence[Any]
    ) -> tuple[Any, Sequence[Any]]:
        """The value, and the gradient with respect to each weight."""

    def product(
        self, function: Callable[..., Any], weights: Sequence[Any], data: Sequence[Any], vectors: Sequence[Any]
    ) -> Sequence[Any]:
        """The Hessian's product with vectors shaped like the weights, one array for each."""


@runtime_checkable
class Backend(Protocol):
    """A framework on a device, as the rules and the conformance suite see it.

    One whose trainer writes no checkpoints says so by ``checkpoints = False``.
    A backend with derivatives also has ``autodiff``, an :class:`Autodiff`. One with several devices also has
    ``on(device)``, which returns the same backend with that one as its first.
    """

    name: str
    """The name users give on the command line; the same as the entry point's."""

    namespace: ModuleType | None
    """The module that is passed to core/ as ``xp``; it has every name of :data:`NAMESPACE`. None for a backend that
    runs whole kernels only, such as onnx."""

    routes: tuple[Route, ...]
    """Every way in which users' kernels run, the plainest first."""

    dtypes: tuple[str, ...]
    """Parameter dtypes that steps run with, such as "float32"; those of half precision with state in float32."""

    optimizers: Mapping[str, Callable[..., Any]]
    """The backend's optimizer classes by command-line name, such as "sophia-g"; empty where it has none."""

    def versions(self) -> Mapping[str, str]:
        """Versions that results depend on: the framework's, its math library's, the driver's."""

    def devices(self) -> tuple[str, ...]:
        """Devices that can be used now, the default first."""

    def from_numpy(self, array: np.ndarray) -> Any:
        """A native array on the default device, with the same values, shape and dtype; the memory may be shared."""

    def to_numpy(self, array: Any) -> np.ndarray:
        """The values of a native array."""

    def trainer(self, **arguments: Any) -> Trainer:
        """A network with an optimizer of this backend (:class:`hessiod.backends.training.trainer.Trainer`).

        Only called when ``optimizers`` is not empty.
        """


def check_backend(backend: Any, name: str) -> Backend:
    """Return ``backend`` if it fulfils the contract; otherwise raise an error that lists what is missing."""
    attributes = ("name", "namespace", "routes", "dtypes", "optimizers")
    methods = ("versions", "devices", "from_numpy", "to_numpy", "trainer")
    missing = [attribute for attribute in (*attributes, *methods) if not hasattr(backend, attribute)]
    if getattr(backend, "namespace", None) is not None:
        missing += [f"namespace.{function}" for function in NAMESPACE if not hasattr(backend.namespace, function)]
        if any(hasattr(backend.namespace, function) for function in LINEAR_ALGEBRA):
            missing += [f"namespace.{name}" for name in LINEAR_ALGEBRA if not hasattr(backend.namespace, name)]
    if missing:
        raise InvalidArgument(
            f"backend {name!r}: missing {', '.join(missing)}; hessiod.backends.contract says what each must do"
        )
    return backend
