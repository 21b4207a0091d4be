"""Einstein sums by permutations and batched products of matrices; ``Einsum`` has no CPU kernel."""

from __future__ import annotations

from mindspore import ops

from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator


def pair_plan(left, right, wanted):
    """How to contract two operands: axes of each as [shared, free, contracted], and the labels that come out."""
    shared = [label for label in left if label in right and label in wanted]
    contracted = [label for label in left if label in right and label not in wanted]
    mine = [label for label in left if label not in right]
    theirs = [label for label in right if label not in left]
    order_left = tuple(left.index(label) for label in shared + mine + contracted)
    order_right = tuple(right.index(label) for label in shared + contracted + theirs)
    return (order_left, order_right, len(shared), len(contracted)), "".join(shared + mine + theirs)


def product(shape):
    """The number of entries of a shape."""
    size = 1
    for length in shape:
        size = size * length
    return size


class CuredEinsum(CuredOperator):
    """``Einsum(equation)(operands)``, from left to right; no ellipsis, and no label twice in one operand."""

    arguments = ("equation",)

    def __init__(self, equation):
        super().__init__()
        inputs, arrow, output = equation.replace(" ", "").partition("->")
        terms = inputs.split(",")
        if not arrow:
            output = "".join(sorted(label for label in set(inputs) if label != "," and inputs.count(label) == 1))
        if "." in equation or any(len(set(term)) < len(term) for term in terms):
            raise ValueError(
                f"einsum: found {equation!r}, expected neither an ellipsis nor a label twice in one operand"
            )
        plans, labels = [], terms[0]
        for place, term in enumerate(terms[1:], start=1):
            wanted = set(output).union(*terms[place + 1 :])
            plan, labels = pair_plan(labels, term, wanted)
            plans.append(plan)
        self.plans = tuple(plans)
        self.sums = tuple(place for place, label in enumerate(labels) if label not in output)
        kept = [label for label in labels if label in output]
        self.order = tuple(kept.index(label) for label in output)

    def construct(self, operands):
        """The contracted array."""
        x = operands[0]
        for place, (order_left, order_right, shared, contracted) in enumerate(self.plans):
            left = ops.transpose(x, order_left)
            right = ops.transpose(operands[place + 1], order_right)
            batch, inner = left.shape[:shared], left.shape[left.ndim - contracted :]
            rows, columns = left.shape[shared : left.ndim - contracted], right.shape[shared + contracted :]
            left = left.reshape((product(batch), product(rows), product(inner)))
            right = right.reshape((product(batch), product(inner), product(columns)))
            x = ops.bmm(left, right).reshape(batch + rows + columns)
        if self.sums:
            x = x.sum(self.sums)
        return ops.transpose(x, self.order) if len(self.order) > 1 else x


OPERATORS = {"Einsum": CuredEinsum}
