"""What importing hessiod loads, in fresh interpreters, and what it says where a framework is not installed."""

import subprocess
import sys

import pytest

ABSENT = """
import importlib.machinery, sys
finder = importlib.machinery.PathFinder

class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.split(".")[0] in {"torch", "mindspore"} else finder.find_spec(name, path, target)

    find_distributions = finder.find_distributions

sys.meta_path[sys.meta_path.index(finder)] = Without
"""


def fresh(program):
    """The output of a program in a new interpreter."""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def loaded_by(imports):
    program = f"{imports}\nimport sys\nprint(*sorted({{'torch', 'mindspore', 'numpy'}} & set(sys.modules)))"
    return set(fresh(program).split())


def test_import_hessiod_loads_no_framework():
    assert loaded_by("import hessiod") == set()


def test_core_loads_nothing_but_the_standard_library():
    walk = "import pkgutil, importlib, hessiod.core as c\nfor m in pkgutil.iter_modules(c.__path__, 'hessiod.core.'):"
    assert loaded_by(f"{walk}\n    importlib.import_module(m.name)") == set()


def test_backends_loads_no_framework():
    walk = "import pkgutil, importlib, hessiod.backends as b\n"
    walk += "for m in pkgutil.walk_packages(b.__path__, 'hessiod.backends.'):"
    assert loaded_by(f"{walk}\n    importlib.import_module(m.name)") == {"numpy"}


@pytest.mark.parametrize("package", ["conformance", "cli"])
def test_the_suite_and_the_command_line_load_no_framework(package):
    assert not loaded_by(f"import hessiod.{package}") & {"torch", "mindspore"}


def test_the_torch_facade_loads_torch_alone():
    assert loaded_by("import hessiod.torch") == {"torch", "numpy"}


def test_names_of_backends_are_known_without_importing_any():
    program = "from hessiod.backends import names\nassert {'numpy', 'torch', 'mindspore'} <= set(names())"
    assert loaded_by(program + "\nimport sys\nassert 'hessiod.backends.numpy' not in sys.modules") == set()


def test_the_command_lists_backends_without_loading_a_framework():
    program = "import sys\nfrom hessiod.cli.app import app\napp(['backends'], standalone_mode=False)"
    program += "\nassert not {'torch', 'mindspore', 'onnx', 'numpy'} & set(sys.modules), 'a framework was loaded'"
    assert "--devices" in fresh(program)


def test_help_lists_the_commands_and_imports_none_of_them():
    program = "import sys\nfrom hessiod.cli.app import COMMANDS, app\napp(['--help'], standalone_mode=False)"
    program += "\nassert not [name for name in COMMANDS if f'hessiod.cli.{name}' in sys.modules]"
    assert "conformance" in fresh(program)


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_a_facade_without_its_framework_says_what_to_install(framework):
    program = (
        f"{ABSENT}\ntry:\n    import hessiod.{framework}\nexcept ImportError as e:\n    print(type(e).__name__, e)"
    )
    assert fresh(program) == (
        f"BackendUnavailable {framework} is not installed; run: pip install 'hessiod[{framework}]'"
    )


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_a_backend_without_its_framework_is_listed_with_what_to_install(framework):
    program = f"{ABSENT}\nfrom hessiod.backends import listings"
    program += f"\nfor l in listings():\n    if l.name == {framework!r}: print(l.backend, l.reason)"
    assert fresh(program) == f"None {framework} is not installed; run: pip install 'hessiod[{framework}]'"


def test_the_numpy_backend_loads_where_no_framework_is_installed():
    assert fresh(f"{ABSENT}\nfrom hessiod.backends import load\nprint(load('numpy').name)") == "numpy"
