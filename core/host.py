"""Python's own numbers as a namespace: functions of ``xp`` on numbers that the host holds.

``minimum`` and ``maximum`` are Python's: NaN as the first argument is returned, as the second it is not.
"""

from __future__ import annotations

from math import sqrt

__all__ = ["maximum", "minimum", "sqrt"]

minimum, maximum = min, max
