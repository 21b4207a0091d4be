import json
import warnings

import pytest

from hessiod.backends.certification import REFUSED, UNCERTIFIED, load, table
from hessiod.core.errors import InvalidArgument


def write(folder, version, device="cpu", framework="mindspore", **operators):
    rows = {
        name: {"first": first, "second": second, "cases": [name.lower()], "why": "off by 0.43"}
        for name, (first, second) in operators.items()
    }
    header = {"framework": framework, "version": version, "device": device}
    path = folder / f"{framework}-{version}-{device}.json"
    path.write_text(json.dumps({"schema": table.SCHEMA, "header": header, "operators": rows}))
    return path


def test_a_table_answers_for_its_own_version_whatever_the_local_part(tmp_path):
    write(tmp_path, "2.10.0", Tanh=("right", "cured"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load("mindspore", "2.10.0+cpu", folder=tmp_path)
    assert found.verdict("Tanh") == "cured"
    assert found.verdict("Tanh", order=1) == "right"
    assert found.verdict("Erf") == UNCERTIFIED
    assert found.operator("Tanh").cases == ("tanh",)


def test_an_unknown_version_keeps_what_the_nearest_table_refuses_and_nothing_else(tmp_path):
    write(tmp_path, "2.10.0", Tanh=("right", "right"), LayerNorm=("right", "refused"), Selu=("wrong", "refused"))
    write(tmp_path, "1.9.0", Erf=("refused", "refused"))
    with pytest.warns(table.UncertifiedVersion, match=r"2\.11\.0 on cpu.*2\.10\.0"):
        found = load("mindspore", "2.11.0", folder=tmp_path)
    assert found.verdict("Tanh") == UNCERTIFIED
    assert found.verdict("Erf") == UNCERTIFIED
    assert (found.verdict("LayerNorm", order=1), found.verdict("LayerNorm")) == (UNCERTIFIED, REFUSED)
    assert (found.verdict("Selu", order=1), found.verdict("Selu")) == (REFUSED, REFUSED)
    assert "2.10.0" in found.why("LayerNorm")


def test_another_device_is_another_table(tmp_path):
    write(tmp_path, "2.13.0", framework="torch", GeluBackward0=("right", "right"))
    with pytest.warns(table.UncertifiedVersion, match="on cuda"):
        assert load("torch", "2.13.0", "cuda", tmp_path).verdict("GeluBackward0") == UNCERTIFIED


def test_without_any_table_everything_is_uncertified(tmp_path):
    with pytest.warns(table.UncertifiedVersion, match="no certification table for torch"):
        assert load("torch", "2.13.0", folder=tmp_path).verdict("GeluBackward0") == UNCERTIFIED


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "other"}', '{"schema": "hessiod-certification-1"}'])
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, text):
    (tmp_path / "mindspore-1.json").write_text(text)
    with pytest.raises(InvalidArgument, match=r"mindspore-1\.json.*hessiod certify"):
        load("mindspore", "2.10.0", folder=tmp_path)


def test_a_folder_of_own_tables_comes_before_the_shipped_ones(tmp_path, monkeypatch):
    write(tmp_path, "2.13.0", framework="torch", MulBackward0=("right", "refused"))
    assert load("torch", "2.13.0").verdict("MulBackward0") == "right"
    monkeypatch.setenv(table.FOLDER, str(tmp_path))
    assert load("torch", "2.13.0+cpu").verdict("MulBackward0") == REFUSED
    monkeypatch.setenv(table.FOLDER, table.NOTHING)
    with pytest.warns(table.UncertifiedVersion):
        assert load("torch", "2.13.0").verdict("MulBackward0") == UNCERTIFIED
