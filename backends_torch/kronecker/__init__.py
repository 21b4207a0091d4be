"""K-FAC, SP-NGD and THOR on PyTorch: one optimizer around a Kronecker preconditioner, three policies.

==================  ==========================================================================
``layers``          what of a module is covered: rows in, rows out, its weight as a matrix
``norms``           scale and shift of normalisation layers, by 2 x 2 blocks
``attention``       the projections of ``nn.MultiheadAttention``
``discover``        which layers a model has, and what is left to a first-order rule
``capture``         hooks that gather statistics: of sampled targets, or of the user's own backward
``blocks``          a layer's factors and inverses, and its natural gradient
``policies``        when statistics are taken and inverted: K-FAC's, SP-NGD's, THOR's
``distributed``     several processes: owners of layers, reductions to them, weights back
``optimizer``       the optimizer that they make together
``plan``            the table of what each parameter gets
``mixup``           running mixup, of SP-NGD's recipe
``kfac``...         the classes that users import
==================  ==========================================================================
"""
