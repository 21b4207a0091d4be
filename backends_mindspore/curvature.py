"""Curvature estimates from traced gradients.

Every function here runs inside a graph. That is not a matter of speed: eagerly, MindSpore 2.10 loses the inner gradient
at every view operator and returns a wrong second derivative without a word.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.holder import Holder
from hessiod.core import philox
from hessiod.core.adahessian import spatial_average
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel, mean_kernel
from hessiod.core.likelihood import RESIDUALS


class Loss(nn.Cell):
    """The loss of a batch whose last input is the target, times a scale, and the loss itself.

    The batch is one tuple: MindSpore does not differentiate a function of any number of inputs.
    """

    def __init__(self, net, loss_fn, scale=1.0):
        super().__init__(auto_prefix=False)
        self.net, self.loss_fn, self.scale = net, loss_fn, scale

    def construct(self, inputs):
        """The scaled loss, and the loss."""
        loss = self.loss_fn(self.net(*inputs[:-1]), inputs[-1])
        return loss * self.scale, loss


class Forward(nn.Cell):
    """The net alone, of the same tuple."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, inputs):
        """The net's output."""
        return self.net(*inputs[:-1])


class GaussNewtonBartlett(Holder):
    """``B * g_hat^2`` from one forward pass, whose backward is run for the loss and for the sampled targets.

    A target is ignored (padding, a mask of the user's) when the loss does not depend on its logits, that is, when the
    loss's gradient with respect to them is zero in every entry.
    """

    def __init__(self, net, loss_fn, weights, scale, seed, likelihood, fraction):
        super().__init__(auto_prefix=False)
        self.forward, self.loss_fn, self.weights, self.scale = Forward(net), loss_fn, weights, scale
        self.seed, self.residual = seed, RESIDUALS[likelihood]
        self.by_row = likelihood == "categorical"
        self.fraction = fraction

    def construct(self, step, inputs):
        """The loss, the scaled loss's gradients, and the estimates."""
        logits, pull_back = ms.vjp(self.forward, inputs, weights=self.weights)
        loss, slope = ms.value_and_grad(self.loss_fn, 0)(logits, inputs[-1])
        used = slope != 0
        if self.by_row:
            used = used.any(-1, True)
        if self.fraction < 1:
            rows = logits.shape[0]
            leading = ops.arange(0, rows, 1, dtype=ms.float32) < self.fraction * rows
            used = ops.logical_and(used, leading.reshape((rows,) + (1,) * (used.ndim - 1)))
        residual = self.residual(xp, logits, self.seed, step, 0) * ops.cast(used, logits.dtype)
        gradients = pull_back(slope * self.scale)[-1]
        totals = pull_back(residual)[-1]
        scalars = gnb_scalars(count=ops.cast(ops.cast(used, ms.float32).sum(), ms.float64))
        return loss, gradients, [self.estimate(total, scalars) for total in totals]

    def estimate(self, total, scalars):
        """One parameter's estimate, in float32 at least: the square of a half-precision number may not be one."""
        dtype = ms.float64 if total.dtype == ms.float64 else ms.float32
        typed = {name: ops.cast(value, dtype) for name, value in scalars.items()}
        return gnb_kernel(xp, ops.cast(total, dtype), **typed)


class Slope(Holder):
    """The gradient's product with probes, and beside it the loss and the gradient."""

    def __init__(self, loss, weights):
        super().__init__(auto_prefix=False)
        self.loss, self.weights = loss, weights

    def construct(self, probes, inputs):
        """The product, the loss, the scaled loss's gradients."""
        (_, loss), gradients = ms.value_and_grad(self.loss, None, self.weights, has_aux=True)(inputs)
        products = [(gradient * probe).sum() for gradient, probe in zip(gradients, probes)]  # noqa: B905 - not traceable
        return ops.stack(products).sum(), loss, gradients


class Hutchinson(Holder):
    """The mean of ``u * (H u)`` over some probes, by reverse mode over reverse mode, spatially averaged."""

    def __init__(self, net, loss_fn, weights, scale, seed, probe, samples, averaging):
        super().__init__(auto_prefix=False)
        self.weights, self.seed, self.inverse_scale = weights, seed, 1.0 / scale
        self.slopes = nn.CellList(
            [Slope(Loss(net, loss_fn, scale), weights) for _ in range(samples)], auto_prefix=False
        )
        self.probes, self.averaging = philox.PROBES[probe], averaging
        self.others = tuple(range(1, samples))
        self.count = Tensor(samples, ms.float64)

    def construct(self, step, inputs):
        """The loss, the scaled loss's gradients, and the estimates."""
        loss, gradients, estimates = self.sample(self.slopes[0], step, 0, inputs)
        for number in self.others:
            _, _, others = self.sample(self.slopes[number], step, number, inputs)
            estimates = [one + other for one, other in zip(estimates, others)]  # noqa: B905
        if self.others:
            estimates = [self.mean(total) for total in estimates]
        return loss, gradients, [spatial_average(xp, estimate, self.averaging) for estimate in estimates]

    def sample(self, slope, step, number, inputs):
        """The loss, the scaled loss's gradients, and one probe's estimates."""
        probes = self.probes(xp, self.weights, seed=self.seed, step=step, sample=number)
        (_, loss, gradients), products = ms.value_and_grad(slope, None, self.weights, has_aux=True)(probes, inputs)
        estimates = [hutchinson_kernel(xp, u, v * self.inverse_scale) for u, v in zip(probes, products)]  # noqa: B905
        return loss, gradients, estimates

    def mean(self, total):
        """A parameter's mean over the probes."""
        return mean_kernel(xp, total, inverse_count=ops.cast(1.0 / self.count, total.dtype))
