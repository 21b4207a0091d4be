"""Where a process that this one starts finds what this one imports."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def search_path() -> str:
    """``sys.path`` as the environment variable ``PYTHONPATH``.

    Folders of packages are left out: MindSpore's parser puts those of the sources that it reads in front, where they do
    no harm to a process that has imported the standard library. In ``mindspore/nn/layer`` ``math`` is another module.
    """
    return os.pathsep.join(entry for entry in sys.path if entry and not Path(entry, "__init__.py").exists())
