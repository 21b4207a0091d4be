"""One Kronecker preconditioner, three policies: the mathematics of K-FAC, SP-NGD and THOR.

The Fisher matrix of a layer with inputs ``a`` and output gradients ``g`` is taken for ``A (x) G``, with ``A = E[a a']``
and ``G = E[g g']``, so that the natural gradient of its weight matrix is ``G^-1 W_grad A^-1``.

==================  ========================================================================
``factors``         A and G from rows, the diagonal A of an embedding, the running average
``damping``         pi-corrected factored Tikhonov damping; raising it; Levenberg-Marquardt's rule
``inverses``        damped inverses by Cholesky, eigenvalues or Newton-Schulz; blocks on the diagonal
``precondition``    ``G^-1 W_grad A^-1``, whole or in blocks, and ``G W A`` for the quadratic model
``unitwise``        the 2 x 2 blocks of scale and shift in BatchNorm and LayerNorm
``trust_region``    the KL bound on a step
``fixed``           K-FAC's policy: fixed intervals
``stale``           SP-NGD's: an interval for each statistic, from how much it changes
``trace_rule``      THOR's: refresh, keep or freeze a layer, from its trace
``owners``            who owns a layer when several processes share the work, and the cost of that
``recipes``         learning rate, momentum and damping over the epochs of the papers' runs
``kernels``           all of these as kernels of matrices, by name
``heavy_ball``      SP-NGD's velocity and its rescaling of weights
==================  ========================================================================

Matrices are ``[..., d, d]``: a convolution's groups are leading axes. The array functions are those of
:data:`hessiod.backends.contract.LINEAR_ALGEBRA`.
"""
