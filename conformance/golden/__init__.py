"""Golden trajectories: the losses of the character GPT in float64, step by step.

They let a machine with one framework be held against numbers that came from elsewhere. ``python -m
hessiod.conformance.golden`` makes them anew, with torch in float64.
"""
