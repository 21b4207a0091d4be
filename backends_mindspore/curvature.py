"""Curvature estimates from traced gradients.

Every function here runs inside a graph. That is not a matter of speed: eagerly, MindSpore 2.10 loses the inner gradient
at every view operator and returns a wrong second derivative without a word.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.holder import Holder
from hessiod.backends_mindspore.traced import each, inner_product, pairs
from hessiod.core import philox
from hessiod.core.adahessian import spatial_average
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel, mean_kernel
from hessiod.core.likelihood import RESIDUALS


def widened(array):
    """A half-precision array in float32, which holds it exactly; any other as it is."""
    if array.dtype == ms.float16 or array.dtype == ms.bfloat16:
        return ops.cast(array, ms.float32)
    return array


def gauss_newton_bartlett(total, count):
    """An estimate from a sum of sampled gradients, and the number of targets."""
    scalars = gnb_scalars(count=count)
    count, inverse = ops.cast(scalars["count"], total.dtype), ops.cast(scalars["inverse_count"], total.dtype)
    return gnb_kernel(xp, total, count=count, inverse_count=inverse)


def hutchinson(probe, product, scale):
    """An estimate from a probe and the product of it with the scaled loss's Hessian."""
    product = widened(product)
    return hutchinson_kernel(xp, widened(probe), product * ops.cast(1.0 / scale, product.dtype))


def averaged(total, count, averaging):
    """The mean of some estimates, spatially averaged."""
    return spatial_average(xp, mean_kernel(xp, total, inverse_count=ops.cast(1.0 / count, total.dtype)), averaging)


def added(array, other):
    """The sum of two arrays."""
    return array + other


def scaled(loss, scale):
    """A scalar loss times its scale, in float32 at least: 65536 is infinite in float16."""
    if loss.size != 1:
        raise ValueError(f"loss: found the shape {loss.shape}, expected a scalar; reduce it with .mean()")
    loss = widened(loss)
    return loss * ops.cast(scale, loss.dtype)


def targets_of(logits, by_row):
    """How many targets a net's output has, ignored ones too: rows of classes, or entries."""
    return logits.size // logits.shape[-1] if by_row else logits.size


class Loss(nn.Cell):
    """The loss of a batch whose last input is the target, times a scale, and the loss itself.

    The batch is one tuple: MindSpore does not differentiate a function of any number of inputs.
    """

    def __init__(self, net, loss_fn):
        super().__init__(auto_prefix=False)
        self.net, self.loss_fn = net, loss_fn

    def construct(self, scale, inputs):
        """The scaled loss, and the loss."""
        loss = self.loss_fn(self.net(*inputs[:-1]), inputs[-1])
        return scaled(loss, scale), loss


class LossOfOutput(nn.Cell):
    """The same from the net's output."""

    def __init__(self, loss_fn):
        super().__init__(auto_prefix=False)
        self.loss_fn = loss_fn

    def construct(self, output, target, scale):
        """The scaled loss, and the loss."""
        loss = self.loss_fn(output, target)
        return scaled(loss, scale), loss


class Forward(nn.Cell):
    """The net alone, of the same tuple."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, inputs):
        """The net's output."""
        return self.net(*inputs[:-1])


# An estimator is called once for each micro-batch, with the micro-batch's number. What it returns of the curvature are
# totals and a count, which are added up; `finish` makes the estimates from their sums.


class GaussNewtonBartlett(Holder):
    """``B * g_hat^2`` from one forward pass, whose backward is run for the loss and for the sampled targets.

    A target is ignored (padding, a mask of the user's) when the loss does not depend on its logits, that is, when the
    loss's gradient with respect to them is zero in every entry.
    """

    def __init__(self, net, loss_fn, weights, seed, likelihood, fraction, processes):
        super().__init__(auto_prefix=False)
        self.forward, self.loss, self.weights = Forward(net), LossOfOutput(loss_fn), weights
        self.seed, self.residual = seed, RESIDUALS[likelihood]
        self.by_row = likelihood == "categorical"
        self.fraction, self.processes = fraction, processes

    def construct(self, step, number, scale, inputs):
        """The loss, the scaled loss's gradients, those of the sampled losses' sum, and the number of targets."""
        logits, pull_back = ms.vjp(self.forward, inputs, weights=self.weights)
        if self.by_row and (logits.ndim < 2 or logits.shape[-1] < 2):
            raise ValueError(
                f"logits: found the shape {logits.shape}, expected [..., classes] with at least 2 classes on the last "
                "axis; move the class axis there, or choose another likelihood="
            )
        (_, loss), slope = ms.value_and_grad(self.loss, 0, has_aux=True)(logits, inputs[-1], scale)
        used = slope != 0
        if self.by_row:
            used = used.any(-1, True)
        if self.fraction < 1:
            rows = logits.shape[0]
            leading = ops.arange(0, rows, 1, dtype=ms.float32) < self.fraction * rows
            used = ops.logical_and(used, leading.reshape((rows,) + (1,) * (used.ndim - 1)))
        wide = widened(logits)
        first = self.processes.place_of(targets_of(logits, self.by_row))
        residual = self.residual(xp, wide, self.seed, step, number, first) * ops.cast(used, wide.dtype)
        gradients = pull_back(slope)[-1]
        totals = pull_back(ops.cast(residual, logits.dtype))[-1]
        count = ops.cast(ops.cast(used, ms.float32).sum(), ms.float64)
        return loss, gradients, each(widened, totals), count

    def finish(self, totals, count):
        """The estimates; in float32 at least, because the square of a half-precision number may not be one."""
        return each(gauss_newton_bartlett, totals, count)


class Slope(Holder):
    """The gradient's product with probes, and beside it the loss and the gradient."""

    def __init__(self, loss, weights):
        super().__init__(auto_prefix=False)
        self.loss, self.weights = loss, weights

    def construct(self, probes, scale, inputs):
        """The product, the loss, the scaled loss's gradients."""
        (_, loss), gradients = ms.value_and_grad(self.loss, None, self.weights, has_aux=True)(scale, inputs)
        products = pairs(inner_product, each(widened, gradients), each(widened, probes))
        return ops.stack(products).sum(), loss, gradients


class Hutchinson(Holder):
    """The mean of ``u * (H u)`` over some probes, by reverse mode over reverse mode, spatially averaged."""

    def __init__(self, net, loss_fn, weights, seed, probe, samples, averaging):
        super().__init__(auto_prefix=False)
        self.weights, self.seed = weights, seed
        self.slopes = nn.CellList([Slope(Loss(net, loss_fn), weights) for _ in range(samples)], auto_prefix=False)
        self.probes, self.averaging = philox.PROBES[probe], averaging
        self.samples, self.others = samples, tuple(range(1, samples))
        self.count = Tensor(samples, ms.float64)

    def construct(self, step, number, scale, inputs):
        """The loss, the scaled loss's gradients, the sum over the probes, and their number."""
        first = number * self.samples
        loss, gradients, totals = self.sample(self.slopes[0], step, first, scale, inputs)
        for place in self.others:
            _, _, others = self.sample(self.slopes[place], step, first + place, scale, inputs)
            totals = pairs(added, totals, others)
        return loss, gradients, totals, self.count

    def sample(self, slope, step, number, scale, inputs):
        """The loss, the scaled loss's gradients, and one probe's estimates of the loss itself."""
        probes = self.probes(xp, self.weights, seed=self.seed, step=step, sample=number)
        (_, loss, gradients), products = ms.value_and_grad(slope, None, self.weights, has_aux=True)(
            probes, scale, inputs
        )
        estimates = tuple(map(hutchinson, tuple(probes), tuple(products), (scale,) * len(probes)))
        return loss, gradients, estimates

    def finish(self, totals, count):
        """The mean over the probes, spatially averaged."""
        return each(averaged, totals, count, self.averaging)
