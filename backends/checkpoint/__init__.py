"""Checkpoints: a model and its optimizer in one safetensors file that every framework reads.

=============  ==========================================================================
``atomic``     files that are there whole or not at all
``arrays``     an array of a live model, as a file sees it
``container``  the safetensors file with its document and SHA-256, written array by array
``record``     what a file says about an optimizer, and the comparison of two
``pairs``      which array of a file is which of a model
``layouts``    names and layouts of the standard layers on the frameworks
``legacy``     files of older formats
``state``      saving and loading, through what a framework tells about its objects
=============  ==========================================================================

docs/checkpoint-format.md describes the file for readers of other programs.
"""

from hessiod.backends.checkpoint.atomic import write_atomically
from hessiod.backends.checkpoint.container import FORMAT, Container
from hessiod.backends.checkpoint.state import Bridge, Loaded, Names, load_state, save_state

__all__ = ["FORMAT", "Bridge", "Container", "Loaded", "Names", "load_state", "save_state", "write_atomically"]
