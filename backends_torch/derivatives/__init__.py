"""Second derivatives of a loss that a closure computes: exact, refused by name, or approximate where asked for by name.

================  ===========================================================================================
``functions``     what users call: products, diagonals, traces
``engine``        which method works for a closure: found once, checked, remembered
``methods``       reverse over reverse, forward over reverse, central differences
``gauss_newton``  gradients of losses over sampled targets
``gradients``     first derivatives
``session``       runs a closure without leaving a trace in weights, gradients, statistics or random states
``places``        where in a model an autograd node was made, and which operators a graph holds
``refusals``      errors that name operator, place and what is left; the certification table's verdicts
``checks``        a product against differences, a parameter that the graph has lost
``parallel``      DistributedDataParallel and fully_shard
================  ===========================================================================================
"""
