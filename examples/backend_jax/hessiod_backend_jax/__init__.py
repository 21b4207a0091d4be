"""Jax as a backend of hessiod: its arrays, two ways of running a kernel, and its own derivatives."""

from functools import cache, partial

import jax
import numpy as np

from hessiod.backends.contract import Route
from hessiod.backends.generic import OPTIMIZERS, GenericTrainer
from hessiod_backend_jax import namespace

jax.config.update("jax_enable_x64", True)


def run(function, arrays, scalars):
    """Op by op, with scalars as 0-d arrays of the operands' dtype."""
    typed = {name: jax.numpy.asarray(value, arrays[0].dtype) for name, value in scalars.items()}
    result = function(namespace, *arrays, **typed)
    return tuple(result) if isinstance(result, tuple) else (result,)


def run_jit(function, arrays, scalars):
    """As one compiled function; XLA may fuse a product and a sum into one rounding."""
    typed = {name: jax.numpy.asarray(value, arrays[0].dtype) for name, value in scalars.items()}
    result = jax.jit(lambda given, numbers: function(namespace, *given, **numbers))(list(arrays), typed)
    return tuple(result) if isinstance(result, tuple) else (result,)


@cache
def compiled_gradient(function):
    """Reverse mode, compiled once for each function."""
    return jax.jit(jax.value_and_grad(partial(function, namespace)))


@cache
def compiled_product(function):
    """Forward mode over reverse mode, compiled once for each function."""

    def product(weights, data, vectors):
        gradient = jax.grad(partial(function, namespace))
        return jax.jvp(lambda params: gradient(params, data), (weights,), (vectors,))[1]

    return jax.jit(product)


class Autodiff:
    """See :class:`hessiod.backends.contract.Autodiff`."""

    def value_and_gradients(self, function, weights, data):
        """The value and one gradient for each weight."""
        return compiled_gradient(function)(list(weights), list(data))

    def product(self, function, weights, data, vectors):
        """The Hessian's product with vectors."""
        return compiled_product(function)(list(weights), list(data), list(vectors))


class JaxBackend:
    """See :class:`hessiod.backends.contract.Backend`."""

    name = "jax"
    namespace = namespace
    routes = (
        Route("eager", run, flushes=True),
        Route("jit", run_jit, contracts=True, flushes=True, compiles=True, specializes=True),
    )
    dtypes = ("float32", "float64")
    optimizers = OPTIMIZERS
    autodiff = Autodiff()
    checkpoints = False

    def versions(self):
        """Jax's version."""
        return {"jax": jax.__version__}

    def devices(self):
        """Every device, the default first."""
        return tuple(str(device) for device in jax.devices())

    def from_numpy(self, array):
        """An array on the default device."""
        return jax.numpy.asarray(array)

    def to_numpy(self, array):
        """The values of an array."""
        return np.asarray(array)

    def trainer(self, **arguments):
        """The suite's networks by the generic trainer."""
        return GenericTrainer(self, **arguments)


BACKEND = JaxBackend()
