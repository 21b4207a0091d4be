"""A trace estimated from random probes, with the standard error of that estimate.

``z' H z`` of a probe with independent entries of mean 0 and variance 1 has the mean ``tr H``. For a symmetric H its
variance is ``2 * sum_{i != j} H_ij^2`` with Rademacher probes and ``2 * ||H||_F^2`` with normal ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, nan, sqrt
from typing import NamedTuple

from hessiod.core.errors import InvalidArgument


class TraceEstimate(NamedTuple):
    """The mean over some probes, and how far from the trace it is likely to be.

    ``standard_error`` is the sample standard deviation over ``sqrt(samples)``: the trace lies within 1.96 of them in 95
    of 100 cases, once there are enough samples for a normal approximation. It is nan for a single sample, which
    tells nothing about its own spread.
    """

    value: float
    standard_error: float
    samples: int


def trace_estimate(forms: Sequence[float]) -> TraceEstimate:
    """The estimate from each probe's quadratic form ``z' H z``, in doubles.

    >>> trace_estimate([3.0, 5.0])
    TraceEstimate(value=4.0, standard_error=1.0, samples=2)
    """
    if not forms:
        raise InvalidArgument("samples: found 0, expected a whole number of probes >= 1")
    count = len(forms)
    mean = fsum(forms) / count
    if count == 1:
        return TraceEstimate(mean, nan, 1)
    variance = fsum((form - mean) ** 2 for form in forms) / (count - 1)
    return TraceEstimate(mean, sqrt(variance / count), count)
