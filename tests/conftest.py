"""What tests of several folders use."""

import ctypes
import resource
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def resident():
    """Measures the bytes of memory that this process holds now.

    What was freed before goes back to the system first: arrays that fit in there would not show.
    """
    library = ctypes.CDLL(None)

    def measure():
        library.malloc_trim(0)
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    return measure
