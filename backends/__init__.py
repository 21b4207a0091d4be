"""The contract between the rules and a framework, the registry of backends, and the numpy backend.

==============  ========================================================================
``contract``    what a backend supplies, from array functions to devices
``registry``    backends by name; nothing is imported until asked for
``numpy``       the reference backend: every kernel, no autodiff
``onnx``        a witness: every kernel from its exported ONNX function; ``hessiod export`` writes it
``gpt``         the character GPT of ``hessiod train``, as far as it is framework-free
``checkpoint``  arrays and settings in one safetensors file, written atomically
==============  ========================================================================
"""

from hessiod.backends.contract import NAMESPACE, Backend, Route
from hessiod.backends.registry import Listing, listings, load, names

__all__ = ["NAMESPACE", "Backend", "Listing", "Route", "listings", "load", "names"]
