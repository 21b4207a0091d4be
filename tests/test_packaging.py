"""The folders, the symlinks and the two tables in pyproject.toml say the same."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = ("core", "backends", "backends_torch", "backends_mindspore", "conformance")


def packages_on_disk():
    inside = {f"hessiod.{name}": f"src/hessiod/{name}" for name in ("bench", "cli", "integrations")}
    found = {"hessiod": "src/hessiod", **inside}
    for top in FOLDERS:
        for init in (ROOT / top).rglob("__init__.py"):
            folder = init.parent.relative_to(ROOT)
            found["hessiod." + ".".join(folder.parts)] = folder.as_posix()
    return found


def test_the_package_tables_match_the_folders():
    assert SETUPTOOLS["package-dir"] == packages_on_disk()
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages_on_disk())


def test_the_symlinks_point_at_the_folders():
    for folder in FOLDERS:
        link = ROOT / "src" / "hessiod" / folder
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder


def test_data_files_are_packaged():
    patterns = SETUPTOOLS["package-data"]
    data = [
        path for top in FOLDERS for path in (ROOT / top).rglob("*") if path.suffix in (".cpp", ".html", ".json", ".txt")
    ]
    for path in data:
        package = "hessiod." + ".".join(path.parent.relative_to(ROOT).parts)
        assert any(path.match(pattern) for pattern in patterns.get(package, [])), path
