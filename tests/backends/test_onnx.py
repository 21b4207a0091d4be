import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.backends.numpy import run
from hessiod.backends.onnx import BACKEND, runtimes
from hessiod.backends.onnx.export import DOMAIN, OPERATORS, OPSET, kernel_model, matrix_model
from hessiod.cli.app import app
from hessiod.conformance import suite
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED
from hessiod.conformance.kernels import KINDS, kernel_checks, subjects
from hessiod.conformance.matrices import calls_of as matrix_calls
from hessiod.conformance.matrices import matrix_checks, untraceable
from hessiod.conformance.selection import NONE_KNOWN
from hessiod.core.errors import InvalidArgument
from hessiod.core.kronecker.kernels import KERNELS as MATRICES
from hessiod.core.rules import RULES
from hessiod.core.trace import evaluate, trace
from hessiod.core.trace.graph import MATRIX

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
    fixed = [check for check in kernel_checks(BACKEND) if not check.id.endswith("/drawn")]
    rows = list(suite.run_checks(fixed, NONE_KNOWN))
    assert [row.id for row in rows if row.verdict != PASS] == []
    dtypes = sum(len(BACKEND.dtypes) if subject.stepped else 2 for subject in subjects())  # estimates are in float32
    assert len(rows) == dtypes * len(BACKEND.routes) * len(KINDS)


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


TRACED = [name for name in MATRICES if not untraceable(name)]
REFUSED = {
    "kronecker.cholesky": "calls xp.spd_inverse",
    "kronecker.eigen": "calls xp.eigh",
    "kronecker.precondition-embedding": "takes a part of an array",
}


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_of_matrices_are_functions_that_both_runtimes_give_numpys_results_for(name, dtype):
    """Matrix products are sums in any order: 32 ULP of the norm, of results that are well conditioned."""
    matrix = MATRICES[name]
    model = matrix_model(matrix, name.replace(".", "_").replace("-", "_"), dtype)
    onnx.checker.check_model(model, full_check=True)
    assert [function.domain for function in model.functions] == [DOMAIN]
    for arrays, scalars in matrix_calls(matrix, np.dtype(dtype)):
        expected = run(matrix.kernel.function, arrays, scalars)
        graph = evaluate(trace(matrix.kernel, MATRIX), numpy_xp, arrays, typed(scalars, dtype))
        assert [one.tobytes() for one in graph] == [other.tobytes() for other in expected]
        for route in BACKEND.routes:
            for found, wanted in zip(route.run(matrix.kernel.function, arrays, scalars), expected, strict=True):
                assert found.dtype == wanted.dtype
                assert found.shape == wanted.shape
                assert np.linalg.norm(found - wanted) <= 32 * np.finfo(dtype).eps * np.linalg.norm(wanted)


def typed(scalars, dtype):
    return {name: np.dtype(dtype).type(value) for name, value in scalars.items()}


def test_newton_schulz_preconditions_and_what_has_no_operator_is_unsupported_by_name():
    rows = list(suite.run_checks(list(matrix_checks(BACKEND)), NONE_KNOWN))
    verdicts = {row.id: row.verdict for row in rows}
    for route in BACKEND.routes:
        assert verdicts[f"L3/kronecker.newton-schulz/onnx/{route.name}/dense"] == PASS
        assert verdicts[f"L3/kronecker.cholesky/onnx/{route.name}/dense"] == UNSUPPORTED
        assert verdicts[f"L3/kronecker.eigen/onnx/{route.name}/dense"] == UNSUPPORTED
    assert any("xp.spd_inverse" in row.why for row in rows)


def test_an_inverse_with_a_wrong_operator_is_caught_by_its_rows(monkeypatch):
    monkeypatch.setitem(OPERATORS, "mul", "Add")  # 2 I - A X becomes 2 + I - A X
    for cached in (runtimes.model, runtimes.reference_session, runtimes.onnxruntime_session):
        cached.cache_clear()
    rows = list(suite.run_checks(list(matrix_checks(BACKEND)), NONE_KNOWN))
    for cached in (runtimes.model, runtimes.reference_session, runtimes.onnxruntime_session):
        cached.cache_clear()
    assert {row.rule for row in rows if row.verdict == FAIL} == {"kronecker.newton-schulz"}


def test_export_takes_kernels_of_matrices_and_refuses_those_without_operators(tmp_path):
    arguments = ["--to", str(tmp_path / "inverse.onnx"), "--test-vectors", str(tmp_path / "vectors")]
    result = CliRunner().invoke(app, ["export", "kronecker.newton-schulz", *arguments])
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "vectors").iterdir()
    assert folder.name == "test_kronecker_newton_schulz_float32"
    assert len(list(folder.glob("test_data_set_*"))) == 2
    assert onnx.load(tmp_path / "inverse.onnx") == onnx.load(folder / "model.onnx")
    assert {name: said for name, said in REFUSED.items() if said in untraceable(name)} == REFUSED
    assert set(TRACED) | set(REFUSED) == set(MATRICES)
    result = CliRunner().invoke(app, ["export", "kronecker.cholesky", "--to", str(tmp_path / "other.onnx")])
    assert "rule: kronecker.cholesky cannot be exported: kernel 'cholesky_inverse' calls" in str(result.exception)
    assert not (tmp_path / "other.onnx").exists()


def test_an_unknown_rule_or_another_suffix_is_refused(tmp_path):
    for arguments, said in ((["lamb", "--to", "x.onnx"], "rule: found 'lamb'"), (["sgd", "--to", "x.pb"], "to: found")):
        result = CliRunner().invoke(app, ["export", *arguments])
        assert isinstance(result.exception, InvalidArgument)
        assert said in str(result.exception)
