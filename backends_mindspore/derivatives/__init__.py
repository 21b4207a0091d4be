"""Second derivatives of unmodified nets.

=============  ================================================================
``engine``     a Hessian's products and a gradient, from a user's forward
``cells``      the graphs: reverse mode over reverse mode
``tracing``    what MindSpore's parser is told while such a graph is traced
``cures``      what stands in for operators that MindSpore has wrong
``operators``  which operators a net is made of, and where they stand
=============  ================================================================
"""
