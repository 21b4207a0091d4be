"""Golden trajectories, the losses of each problem in float64, step by step, and the data behind them.

They let a machine with one framework be held against numbers that came from elsewhere. ``python -m
hessiod.conformance.golden`` makes them anew, with torch in float64; ``python -m hessiod.conformance.golden.digits``
cuts the images from scikit-learn's.
"""
