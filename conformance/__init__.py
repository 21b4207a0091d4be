"""The conformance suite says whether a backend, on a device, is right.

================  ================================================================
``suite``         runs the levels over backends and collects the rows
``kernels``       level 1: kernels against published formulas and each other
``trajectories``  level 4: training runs against golden losses and each other
``enclosure``     which results a faithful evaluation may have
``formulas``      the published formulas in extended precision
``inputs``        arrays that kernels find hard
``report``        the rows as JSON, Markdown and HTML
================  ================================================================
"""
