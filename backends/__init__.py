"""The contract between the rules and a framework, the registry of backends, and the numpy backend.

==============  ========================================================================
``contract``    what a backend supplies, from array functions to devices
``registry``    backends by name; nothing is imported until asked for
``numpy``       the reference backend: every kernel, no autodiff
``onnx``        a witness: every kernel from its exported ONNX function; ``hessiod export`` writes it
``training``    what a training run is, as far as it is framework-free
``generic``     training for a backend without optimizer classes of its own: rules, autodiff, networks
``gpt``         the character GPT of ``hessiod train``: shape, text, settings
``digits``      a two-layer perceptron on handwritten digits: shape, images, settings
``checkpoint``  arrays and settings in one safetensors file, written atomically
==============  ========================================================================
"""

from hessiod.backends.contract import NAMESPACE, Backend, Route
from hessiod.backends.registry import Listing, listings, load, names

__all__ = ["NAMESPACE", "Backend", "Listing", "Route", "listings", "load", "names"]
