"""The whole suite, in three lines."""

from hessiod.conformance import BackendSuite


class TestJax(BackendSuite):
    backend = "jax"
