"""What each process of test_torch_kronecker_distributed runs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hessiod.backends_torch.kronecker.triangles import packed
from hessiod.core import InvalidState, NonFinite
from hessiod.torch import KFAC, SPNGD, THOR

BATCH, STEPS = 16, 7
METHODS = {
    "kfac": lambda model, **options: KFAC(
        model, lr=0.1, damping=0.01, fisher="empirical", factor_every=2, inverse_every=4, **options
    ),
    "spngd": lambda model, **options: SPNGD(model, lr=0.1, damping=0.01, rescale=["*"], **options),
    "thor": lambda model, **options: THOR(model, lr=0.1, damping=0.01, factor_every=2, block_size=5, **options),
}
CASES = [  # method, placement, overlap
    *[(name, "owner", False) for name in METHODS],
    ("kfac", "every", False),
    ("kfac", "one", False),
    ("spngd", "owner", True),
]


class Net(nn.Module):
    """A convolution, attention, normalisation, linear layers, and a parameter that no layer covers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolve = nn.Conv1d(1, 6, 3, stride=2, padding=1)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.body, self.head = nn.Linear(6, 12), nn.Linear(12, 4)
        self.three = nn.LayerNorm(3)  # its statistics are square, and not symmetric
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        x = self.convolve(x[:, None]).mT
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = torch.tanh(self.body(self.scale * x.mean(1)))
        return self.head(self.three(x.view(-1, 4, 3)).flatten(1))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (BATCH,), generator=generator)


def train(name, rank=0, ranks=1, start=0, stop=STEPS, **options):
    """Train on this rank's part of each batch; return model and optimizer."""
    model = Net().double()
    opt = METHODS[name](model, **options)
    for step in range(start, stop):
        one_step(model, opt, step, rank, ranks)
    return model, opt


def one_step(model, opt, step, rank, ranks, spoil=False):
    x, y = (part.chunk(ranks)[rank].clone() for part in batch(step))
    if spoil:
        x[0] = float("nan")
    F.cross_entropy(model(x), y).backward()
    opt.step()
    opt.zero_grad()


def flat(model):
    return torch.cat([param.detach().flatten() for param in model.parameters()])


def state_bytes(opt):
    """Bytes of factors, inverses and momentum on this rank."""
    total = 0
    for state in opt.state.values():
        for value in state.values():
            parts = value if isinstance(value, list) else [value] if torch.is_tensor(value) else []
            total += sum(part.numel() * part.element_size() for part in parts)
    return total


def one_refresh_bytes(opt):
    """What a step with all statistics sends by the formula of the documentation, in float64."""
    weights = sum(p.numel() for p in opt._names)
    triangles = 0
    for layer in opt.layers:
        triangles += sum(packed(name, torch.zeros(shape)).numel() for name, shape in layer.factor_shapes().items())
        triangles += "a" in layer.statistics  # the number of rows
    return 8 * (triangles + weights * (1 if opt._ranks.placement == "every" else 2))


def spread(name, placement, overlap, rank, ranks):
    """A run, and what it costs."""
    options = dict(process_group=True, placement=placement, overlap=overlap)
    model, opt = train(name, rank, ranks, stop=1, **options)
    bytes_sent, formula = opt._ranks.bytes_sent, one_refresh_bytes(opt)
    for step in range(1, STEPS):
        one_step(model, opt, step, rank, ranks)
    return dict(weights=flat(model), bytes=bytes_sent, formula=formula, state=state_bytes(opt), due=opt.curvature_due)


def resumed(rank, ranks):
    """A run that each rank continues from its own part of the state."""
    model, opt = train("spngd", rank, ranks, stop=4, process_group=True)
    other = Net().double()
    other.load_state_dict(model.state_dict())
    second = METHODS["spngd"](other, process_group=True)
    second.load_state_dict(opt.state_dict())
    for step in range(4, STEPS):
        one_step(other, second, step, rank, ranks)
    return flat(other)


def drift(rank, ranks):
    """The error for an optimizer that would leave each rank to itself."""
    METHODS["kfac"](Net(), process_group=False)
    try:
        METHODS["kfac"](Net())
    except InvalidState as error:
        return str(error)
    return ""


def refused(rank, ranks):
    """NaN in the last rank's part of the batch: every rank refuses the step, and none has changed."""
    model, opt = train("kfac", rank, ranks, stop=2, process_group=True)
    before = flat(model)
    try:
        one_step(model, opt, 2, rank, ranks, spoil=rank == ranks - 1)
    except NonFinite:
        return bool(torch.equal(before, flat(model)) and opt.steps == 2)
    return False


SPOILED = 2


def scaled(rank, ranks):
    """Training with a GradScaler on each rank; the last rank overflows once, and only its own scaler sees that."""
    model = Net().double()
    opt = METHODS["kfac"](model, process_group=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(STEPS):
        x, y = (part.chunk(ranks)[rank].clone() for part in batch(step))
        if step == SPOILED and rank == ranks - 1:
            x[0] = float("inf")
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
    return dict(weights=flat(model), steps=opt.steps, scale=scaler.get_scale())


def without_the_spoiled():
    """The same in one process without a scaler, on the other batches."""
    model = Net().double()
    opt = METHODS["kfac"](model)
    for step in range(STEPS):
        if step != SPOILED:
            one_step(model, opt, step, 0, 1)
    return flat(model)
