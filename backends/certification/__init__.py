"""Which operators' derivatives a framework has right: cases, golden values, and the tables that the engines read.

===============  ===========================================================================
``case``         a case: its name, its inputs and how they are drawn
``families``     all cases, family by family
``catalogue``    all cases by name
``golden``       float64 gradients and Hessian products, on which two sources agree
``measurement``  a framework's derivatives held against them
``table``        the shipped verdicts by framework version, as the engines look them up
===============  ===========================================================================
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
