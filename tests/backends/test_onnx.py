import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from hessiod.backends.numpy import run
from hessiod.backends.onnx import BACKEND
from hessiod.backends.onnx.export import DOMAIN, OPSET, kernel_model
from hessiod.cli.app import app
from hessiod.conformance import suite
from hessiod.conformance.case import PASS
from hessiod.conformance.kernels import KINDS, kernel_checks, subjects
from hessiod.conformance.selection import NONE_KNOWN
from hessiod.core.errors import InvalidArgument
from hessiod.core.rules import RULES

KERNELS = [
    (f"{rule.name}.{part}", kernel)
    for rule in RULES.values()
    for part, kernel in (("step", rule.step), ("refresh", rule.refresh))
    if kernel
]


@pytest.mark.parametrize(("name", "kernel"), KERNELS, ids=[name for name, _ in KERNELS])
def test_every_kernel_is_one_onnx_function_that_the_checker_accepts_in_full(name, kernel):
    model = kernel_model(kernel, name.replace(".", "_").replace("-", "_"))
    onnx.checker.check_model(model, full_check=True)
    (function,) = model.functions
    assert function.domain == DOMAIN
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": OPSET, DOMAIN: 1}
    assert [node.domain for node in model.graph.node] == [DOMAIN]
    assert list(function.input)[: len(kernel.operands)] == list(kernel.operands)
    assert list(function.output) == [f"{result}_out" for result in kernel.results]
    assert "float64" in function.doc_string


def test_both_runtimes_agree_with_numpy_on_every_kernel():
    assert [route.name for route in BACKEND.routes] == ["reference", "onnxruntime"]
    rows = list(suite.run_checks(list(kernel_checks(BACKEND)), NONE_KNOWN))
    assert [row.id for row in rows if row.verdict != PASS] == []
    assert len(rows) == len(subjects()) * len(BACKEND.routes) * len(BACKEND.dtypes) * len(KINDS)


def test_a_wrong_node_in_an_exported_model_shows():
    model = kernel_model(RULES["sophia"].step, "sophia_step")
    node = next(node for node in model.functions[0].node if node.op_type == "Max")
    node.op_type = "Min"
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=7).astype(np.float32) for _ in RULES["sophia"].step.operands]
    scalars = dict(RULES["sophia"].step.scalars_from({**RULES["sophia"].defaults, "step": 1}))
    names = [given.name for given in model.graph.input]
    feeds = dict(zip(names, [*arrays, *(np.float32(value) for value in scalars.values())], strict=True))
    found = ReferenceEvaluator(model).run(None, feeds)
    assert not np.array_equal(found[0], run(RULES["sophia"].step.function, arrays, scalars)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_export_writes_models_and_vectors_that_onnxruntime_reproduces_bit_for_bit(tmp_path, dtype):
    arguments = ["export", "sophia-g", "--to", str(tmp_path / "sophia-g.onnx"), "--dtype", dtype]
    result = CliRunner().invoke(app, [*arguments, "--test-vectors", str(tmp_path / "vectors")])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"sophia-g.onnx", "sophia-g-refresh.onnx", "vectors"}
    folders = sorted((tmp_path / "vectors").iterdir())
    assert [folder.name for folder in folders] == [f"test_sophia_refresh_{dtype}", f"test_sophia_step_{dtype}"]
    for folder in folders:
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        sets = sorted(folder.glob("test_data_set_*"))
        assert len(sets) == 6
        for data in sets:
            given, expected = (
                [numpy_helper.to_array(onnx.load_tensor(path)) for path in sorted(data.glob(f"{kind}_*.pb"), key=index)]
                for kind in ("input", "output")
            )
            names = [entry.name for entry in session.get_inputs()]
            for found, wanted in zip(session.run(None, dict(zip(names, given, strict=True))), expected, strict=True):
                assert found.tobytes() == wanted.tobytes()


def index(path):
    return int(path.stem.rpartition("_")[2])


def test_an_unknown_rule_or_another_suffix_is_refused(tmp_path):
    for arguments, said in ((["lamb", "--to", "x.onnx"], "rule: found 'lamb'"), (["sgd", "--to", "x.pb"], "to: found")):
        result = CliRunner().invoke(app, ["export", *arguments])
        assert isinstance(result.exception, InvalidArgument)
        assert said in str(result.exception)
