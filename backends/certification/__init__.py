"""Which operators' derivatives a framework has right: cases, golden values, and the tables that the engines read.

============  ==============================================================================
``table``     the shipped verdicts by framework version, as the engines look them up
============  ==============================================================================
"""

from hessiod.backends.certification.table import (
    CURED,
    REFUSED,
    RIGHT,
    UNCERTIFIED,
    WRONG,
    Operator,
    Table,
    load,
    shipped,
)

__all__ = ["CURED", "REFUSED", "RIGHT", "UNCERTIFIED", "WRONG", "Operator", "Table", "load", "shipped"]
