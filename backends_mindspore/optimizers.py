"""draft"""
from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.core.rules import RULES
class AdamW(RuleOptimizer):
    def __init__(self, params, learning_rate=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=1e-2, loss_scale=1.0, nonfinite="raise"):
        super().__init__(RULES["adamw"], params, learning_rate, dict(beta1=beta1, beta2=beta2, eps=eps), weight_decay, loss_scale, nonfinite)
