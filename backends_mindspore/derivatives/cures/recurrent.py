"""The LSTM, step by step; the fused operator has no second derivative."""

from __future__ import annotations

from mindspore import ops

from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator
from hessiod.backends_mindspore.derivatives.cures.tanh import TANH


class CuredLSTM(CuredOperator):
    """``LSTM(...)(x, h, c, weights)`` for one layer in one direction, which is all that ``nn.LSTM`` asks of it on CPUs.

    The weights are one column: input to gates, hidden state to gates, and the sum of the biases, gates in the order
    input, forget, cell, output (Hochreiter and Schmidhuber 1997, with forget gates).
    """

    arguments = ("input_size", "hidden_size", "num_layers", "has_bias", "bidirectional", "dropout", "proj_size")

    def __init__(self, input_size, hidden_size, num_layers, has_bias, bidirectional, dropout, proj_size=0):
        super().__init__()
        if num_layers != 1 or bidirectional or dropout or proj_size:
            raise ValueError(
                f"LSTM: found num_layers={num_layers}, bidirectional={bidirectional}, dropout={dropout}, "
                f"proj_size={proj_size}, expected one plain layer; its second derivative is known for nothing else"
            )
        self.inputs, self.hidden, self.has_bias = input_size, hidden_size, has_bias

    def construct(self, x, h, c, weights):
        """Outputs ``[steps, rows, hidden]``, the last hidden and cell state, and two empty places."""
        gates, flat = 4 * self.hidden, weights.reshape(-1)
        end = gates * self.inputs
        from_input = flat[:end].reshape((gates, self.inputs))
        from_hidden = flat[end : end + gates * self.hidden].reshape((gates, self.hidden))
        pushed = ops.matmul(x, from_input.T)
        if self.has_bias:
            pushed = pushed + flat[end + gates * self.hidden :]
        h, c = h[0], c[0]
        outputs = []
        for step in range(x.shape[0]):
            gate = pushed[step] + ops.matmul(h, from_hidden.T)
            take, keep, cell, show = ops.split(gate, self.hidden, -1)
            c = ops.sigmoid(keep) * c + ops.sigmoid(take) * TANH(cell)
            h = ops.sigmoid(show) * TANH(c)
            outputs.append(h)
        return ops.stack(outputs), ops.expand_dims(h, 0), ops.expand_dims(c, 0), h, c


OPERATORS = {"LSTM": CuredLSTM}
