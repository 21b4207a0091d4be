"""Curvature estimates from traced gradients.

Every function here runs inside a graph. That is not a matter of speed: eagerly, MindSpore 2.10 loses the inner gradient
at every view operator and returns a wrong second derivative without a word.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import nn, ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.wrong_derivatives import refuse_wrong_second_derivatives
from hessiod.core import philox
from hessiod.core.curvature import gnb_kernel, gnb_scalars, hutchinson_kernel
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


class GaussNewtonBartlett(nn.Cell):
    """``B * g_hat^2`` from one forward pass, whose backward is run for the loss and for the sampled targets.

    A target is ignored (padding, a mask of the user's) when the loss does not depend on its logits, that is, when the
    loss's gradient with respect to them is zero in every entry.
    """

    def __init__(self, net, loss_fn, weights, scale, seed, likelihood):
        super().__init__(auto_prefix=False)
        self.forward, self.loss_fn, self.weights, self.scale = Forward(net), loss_fn, weights, scale
        self.seed, self.residual = seed, RESIDUALS[likelihood]
        self.by_row = likelihood == "categorical"

    def construct(self, step, inputs):
        """The loss, the scaled loss's gradients, and the estimates."""
        logits, pull_back = ms.vjp(self.forward, inputs, weights=self.weights)
        loss, slope = ms.value_and_grad(self.loss_fn, 0)(logits, inputs[-1])
        used = slope != 0
        if self.by_row:
            used = used.any(-1, True)
        residual = self.residual(xp, logits, self.seed, step, 0) * ops.cast(used, logits.dtype)
        gradients = pull_back(slope * self.scale)[-1]
        totals = pull_back(residual)[-1]
        scalars = gnb_scalars(count=ops.cast(ops.cast(used, ms.float32).sum(), ms.float64))
        return loss, gradients, [self.estimate(total, scalars) for total in totals]

    def estimate(self, total, scalars):
        """One parameter's estimate."""
        return gnb_kernel(xp, total, **{name: ops.cast(value, total.dtype) for name, value in scalars.items()})


class Slope(nn.Cell):
    """The gradient's product with probes, and beside it the loss and the gradient."""

    def __init__(self, loss, weights):
        super().__init__(auto_prefix=False)
        self.loss, self.weights = loss, weights

    def construct(self, probes, inputs):
        """The product, the loss, the scaled loss's gradients."""
        (_, loss), gradients = ms.value_and_grad(self.loss, None, self.weights, has_aux=True)(inputs)
        total = 0.0
        for gradient, probe in zip(gradients, probes):  # noqa: B905 - strict= cannot be traced
            total = total + (gradient * probe).sum()
        return total, loss, gradients


class Hutchinson(nn.Cell):
    """``u * (H u)`` with a Rademacher probe, by reverse mode over reverse mode."""

    def __init__(self, net, loss_fn, weights, scale, seed):
        super().__init__(auto_prefix=False)
        refuse_wrong_second_derivatives(net)
        refuse_wrong_second_derivatives(loss_fn)
        self.weights, self.seed, self.inverse_scale = weights, seed, 1.0 / scale
        self.slope = Slope(Loss(net, loss_fn, scale), weights)

    def construct(self, step, inputs):
        """The loss, the scaled loss's gradients, and the estimates."""
        probes = philox.rademacher_probes(xp, self.weights, seed=self.seed, step=step)
        (_, loss, gradients), products = ms.value_and_grad(self.slope, None, self.weights, has_aux=True)(probes, inputs)
        estimates = [hutchinson_kernel(xp, u, v * self.inverse_scale) for u, v in zip(probes, products)]  # noqa: B905
        return loss, gradients, estimates
