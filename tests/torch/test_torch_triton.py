"""Generated Triton, interpreted on the CPU, against the numpy kernel; and compiled for a GPU that is not there."""

import logging
import re

import numpy as np
import pytest
import torch

from hessiod.backends import kernels
from hessiod.backends.kernels import triton_code
from hessiod.backends.numpy import run as run_numpy
from hessiod.backends_torch import triton_sweep
from hessiod.backends_torch.arrays import DTYPES, Arrays
from hessiod.backends_torch.plans import batch_for
from hessiod.backends_torch.triton_sweep import TritonBatch, functions_of
from hessiod.conformance.enclosure import enclose
from hessiod.conformance.inputs import SHAPES, hard_array
from hessiod.conformance.kernels import SETTINGS
from hessiod.core import RULES
from hessiod.core.trace import Program, trace
from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, SophiaH

CPU = torch.device("cpu")
PROGRAMS = {rule.name: (rule.step,) for rule in RULES.values()} | {
    f"{rule.name} with refresh": (rule.refresh, rule.step) for rule in RULES.values() if rule.refresh is not None
}


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("HESSIOD_KERNELS", "interpreted")


def batch_of(name, dtype, tensors):
    """A batch of dictionaries of tensors, on the CPU."""
    kind = next(key for key, value in DTYPES.items() if value == dtype)
    batch = batch_for(PROGRAMS[name], (kind, kind, torch.float64 if dtype == "float64" else torch.float32), CPU)
    assert isinstance(batch, TritonBatch)
    for place, arrays in enumerate(tensors):
        batch.add(place, [arrays[operand] for operand in batch.sweep.program.operands])
    return batch


def by_numpy(kernel_list, arrays, values):
    found = dict(arrays)
    for kernel in kernel_list:
        results = run_numpy(kernel.function, [found[name] for name in kernel.operands], kernel.scalars_from(values))
        found |= dict(zip(kernel.results, results, strict=True))
    return found


def exact(kernel):
    return trace(kernel).elementwise and all(node.op != "pow" for node in trace(kernel).nodes)


def allowed(program, dtype):
    return dtype == "float32" or not {node.op for node in program.graph.nodes} & set(triton_code.INEXACT)


CASES = [
    (name, dtype) for name in PROGRAMS for dtype in ("float32", "float64") if allowed(Program(PROGRAMS[name]), dtype)
]


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log2")
@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_every_program_gives_numpys_bits_or_lies_where_a_sum_or_a_power_may_lead(name, dtype):
    kernel_list, program = PROGRAMS[name], Program(PROGRAMS[name])
    given = [
        {operand: hard_array(operand, place, shape, np.dtype(dtype)) for place, operand in enumerate(program.operands)}
        for shape in SHAPES
    ]
    for setting in SETTINGS:
        values = {**RULES[name.split(" ")[0]].defaults, **setting}
        got = [{operand: torch.tensor(array) for operand, array in arrays.items()} for arrays in given]
        batch_of(name, dtype, got).run([], [0] * len(got), [program.scalars_from(values)])
        for arrays, found in zip(given, got, strict=True):
            results = {operand: tensor.numpy() for operand, tensor in found.items()}
            for operand in set(program.operands) - set(program.results):
                assert results[operand].tobytes() == arrays[operand].tobytes(), f"{operand} was written to"
            if all(map(exact, kernel_list)):
                for result in program.results:
                    np.testing.assert_array_equal(results[result], by_numpy(kernel_list, arrays, values)[result])
            else:
                lies_within(kernel_list[-1], results, by_numpy(kernel_list[:-1], arrays, values), values)


def lies_within(kernel, got, before, values):
    operands, scalars = [before[name] for name in kernel.operands], dict(kernel.scalars_from(values))
    bounds = enclose(kernel.function, operands, scalars, dtype=operands[0].dtype, kind="agreement", flushes=False)
    for name, bound in zip(kernel.results, bounds, strict=True):
        assert bound.contains(got[name]).all(), name


@pytest.fixture
def few_lanes(monkeypatch):
    """Eight chunks are added at a time instead of 128, so that more of them are soon interpreted."""
    monkeypatch.setattr(triton_code, "LANES", 8)
    triton_sweep._sweep_for.cache_clear()
    yield
    triton_sweep._sweep_for.cache_clear()


@pytest.mark.usefixtures("few_lanes")
@pytest.mark.parametrize("name", ["sophia", "apollo-stable"])
def test_nothing_depends_on_which_tensors_share_a_launch(name):
    """Sizes on both sides of a block and of a chunk, and more chunks than lanes add at a time."""
    program, generator = Program(PROGRAMS[name]), torch.Generator().manual_seed(0)
    sizes = [1, 1023, 1025, 4095, 4096, 4097, (triton_code.LANES + 1) * triton_code.CHUNK + 5]
    scalars = [program.scalars_from({**RULES[name].defaults, **SETTINGS[1]})]

    def after(groups):
        generator.manual_seed(0)
        tensors = [{name: torch.rand(size, generator=generator) for name in program.operands} for size in sizes]
        for group in groups:
            batch_of(name, "float32", [tensors[place] for place in group]).run([], [0] * len(group), scalars)
        return [tensor for arrays in tensors for tensor in arrays.values()]

    together, apart = after([range(7)]), after([[6, 0], [5], [4, 3, 2, 1]])
    assert all(map(torch.equal, together, apart))


KINDS = {
    "AdamW": lambda params: AdamW(params, lr=0.01, weight_decay=0.1),
    "SGD": lambda params: SGD(params, lr=0.01, momentum=0.9),
    "SophiaH": lambda params: SophiaH(params, lr=0.01, every=2),
    "AdaHessian": lambda params: AdaHessian(params, lr=0.01, every=2),
    "Apollo": lambda params: Apollo(params, lr=0.01, warmup=0),
}


def run(kind, dtype=torch.float32):
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((50, 90), (3, 7), (), (0,))]
    opt = KINDS[kind](params)
    for _ in range(3):
        if getattr(opt, "curvature_due", False):
            opt.update_curvature(loss=sum(torch.cos(param.float()).sum() for param in params))
        for param in params:
            param.grad = torch.sin(param.detach())
        opt.step()
    slots = [value for param in params for value in opt.state[param].values() if torch.is_tensor(value)]
    return [tensor.detach() for tensor in (*params, *slots)]


@pytest.fixture
def rounding(monkeypatch):
    """Triton rounds float32 to bfloat16 to nearest even; its interpreter cuts off the digits instead."""
    import triton.language as tl
    from triton.runtime import interpreter

    real = interpreter.InterpreterBuilder.cast_impl

    def cast(self, source, kind):
        if source.dtype.scalar != tl.float32 or kind.scalar != tl.bfloat16:
            return real(self, source, kind)
        rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16().view(torch.int16).numpy()
        return interpreter.TensorHandle(rounded.view(np.uint16), tl.bfloat16)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "cast_impl", cast)


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_optimizers_take_it_and_agree_with_the_processors_route(kind, dtype, monkeypatch):
    launches, real = [], TritonBatch.call
    monkeypatch.setattr(
        TritonBatch, "call", lambda self, name, *rest, **more: launches.append(name) or real(self, name, *rest, **more)
    )
    found = run(kind, dtype)
    assert launches.count("pass_0") >= 4  # three steps, and one that only compiles
    monkeypatch.setenv("HESSIOD_KERNELS", "auto")
    for one, other in zip(found, run(kind, dtype), strict=True):
        if kind == "Apollo":  # its sums round in another order
            torch.testing.assert_close(one, other, rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
        else:
            assert torch.equal(one, other)


def test_addresses_are_sent_only_when_they_change():
    param, grad = torch.zeros(5), torch.ones(5)
    program = Program(PROGRAMS["sgd"])
    batch = batch_of("sgd", "float32", [{"param": param, "grad": grad}])
    scalars = [program.scalars_from({"lr": 1.0, "weight_decay": 0.0})]
    batch.run([Arrays([grad])], [0], scalars)
    sent = batch.sent["table"][1]
    batch.run([Arrays([grad])], [0], scalars)
    assert batch.sent["table"][1] is sent
    batch.run([Arrays([torch.full((5,), 2.0)])], [0], scalars)
    assert batch.sent["table"][1] is not sent
    assert param.tolist() == [-4.0] * 5


POINTERS = {"float32": "*fp32", "float64": "*fp64"}


@pytest.mark.parametrize(
    ("name", "dtype"), [("sophia with refresh", "float32"), ("adamw", "bfloat16"), ("apollo-stable", "float32")]
)
def test_the_kernels_compile_for_a_gpu_with_operations_that_round_correctly(name, dtype):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    text = triton_code.source(Program(PROGRAMS[name]), dict.fromkeys(("param", "grad", "estimate"), dtype))
    for label, function in functions_of(text, False).items():
        blocks = {"ALIGNED": 16, "CHUNK": triton_code.CHUNK, "BLOCK": triton_code.BLOCK, "LANES": triton_code.LANES}
        constants = {key: value for key, value in blocks.items() if key in function.arg_names}
        kinds = {"width": "i32", "known": "i32", "scalars": "*fp32", "singles": "*fp32", "sums": "*fp64"}
        signature = {key: "constexpr" if key in constants else kinds.get(key, "*i64") for key in function.arg_names}
        options = {"num_warps": triton_sweep.WARPS, "enable_fp_fusion": False}
        found = triton.compile(
            ASTSource(function, signature, constants), target=GPUTarget("cuda", 80, 32), options=options
        )
        assembly = found.asm["ptx"]
        assert not re.search(r"\bfma\b|div\.(full|approx)|sqrt\.approx|\.ftz", assembly)
        if label == "pass_0":
            assert "ld.global.v4.b32" in assembly
            assert ("cvt.rn.bf16" in assembly) == (dtype == "bfloat16")


def test_without_triton_a_gpus_step_runs_op_by_op_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setenv("HESSIOD_KERNELS", "auto")
    monkeypatch.setattr(triton_sweep, "find_spec", lambda name: None)
    triton_sweep._sweep_for.cache_clear()
    triton_sweep.say_once.cache_clear()
    cuda = torch.device("cuda", 0)
    try:
        with caplog.at_level(logging.WARNING):
            for dtype in (torch.float32, torch.bfloat16):
                assert batch_for(PROGRAMS["adamw"], (dtype, dtype), cuda) is None
    finally:
        triton_sweep._sweep_for.cache_clear()
    said = "adamw_kernel runs op by op on the GPU: triton is not installed; run: pip install 'hessiod[triton]'"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_a_kernel_that_does_not_compile_leaves_the_step_to_single_operations(monkeypatch, caplog):
    def broken(self, name, *rest, **more):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(TritonBatch, "call", broken)
    with pytest.raises(RuntimeError, match="C compiler"):
        run("SGD")
    monkeypatch.setattr(kernels, "choice", lambda: "auto")
    batch = TritonBatch(triton_sweep._sweep_for(PROGRAMS["sgd"], "float32", "float32", "float32", True), CPU)
    triton_sweep.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not any(triton_sweep.prepared(batch) for _ in range(2))
    assert [record.getMessage() for record in caplog.records] == [
        "sgd_kernel runs op by op on the GPU: Failed to find C compiler"
    ]
