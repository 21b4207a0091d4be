"""K-FAC, SP-NGD and THOR on PyTorch: one optimizer around a Kronecker preconditioner, three policies.

==================  ==========================================================================
``layers``          what of a module is covered: rows in, rows out, its weight as a matrix
``norms``           scale and shift of normalisation layers, by 2 x 2 blocks
``attention``       the projections of ``nn.MultiheadAttention``
``discover``        which layers a model has, and what is left to a first-order rule
``groups``          what a user gives: model, groups, settings
``due``             which layers want statistics in the coming step
``capture``         hooks that gather them: of sampled targets, or of the user's own backward
``sums``            what was gathered, and the factors that it gives
``counter``         how many targets a loss averages
``policies``        when statistics are taken and inverted: K-FAC's, SP-NGD's, THOR's
``blocks``          a layer's factors and inverses, and its natural gradient
``directions``      natural gradients of all layers, and the trust region
``states``          where a layer's factors are kept, and loading them
``saved``           the same as a checkpoint sees them
``alone``           one process
``distributed``     several: owners of layers, reductions to them, weights back
``triangles``       how symmetric statistics are sent
``optimizer``       the optimizer that they make together
``plan``            the table of what each parameter gets
``mixup``           running mixup, of SP-NGD's recipe
``kfac``...         the classes that users import
==================  ==========================================================================
"""
