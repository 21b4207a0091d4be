"""The registry and the contract's checks, with backends that are broken on purpose."""

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from hessiod.backends import Backend, listings, load, names, registry
from hessiod.backends.card import Card, card_of
from hessiod.backends.contract import LINEAR_ALGEBRA, NAMESPACE, check_backend
from hessiod.backends.numpy import NumpyBackend
from hessiod.backends.registry import cards, on_device
from hessiod.core import BackendUnavailable, HessiodError, InvalidArgument


@pytest.fixture
def announce(monkeypatch):
    """Announces further backends by name and object reference."""

    def announce(**references):
        entries = {name: EntryPoint(name, value, registry.GROUP) for name, value in references.items()}
        real = registry._entry_points()
        monkeypatch.setattr(registry, "_entry_points", lambda: real | entries)

    return announce


def complete():
    """A backend that can be damaged without touching the real one."""
    backend = NumpyBackend()
    backend.namespace = types.SimpleNamespace(**vars(NumpyBackend.namespace))
    return backend


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_three_backends_are_announced():
    assert {"numpy", "torch", "mindspore"} <= set(names())


def test_the_numpy_backend_fulfils_the_contract():
    backend = load("numpy")
    assert isinstance(backend, Backend)
    assert backend.devices() == ("cpu",)
    assert not backend.optimizers


def test_the_numpy_backend_says_who_can_train():
    with pytest.raises(BackendUnavailable, match="train with torch or mindspore"):
        load("numpy").trainer()


def test_an_unknown_backend_is_refused_with_those_that_exist():
    with pytest.raises(InvalidArgument) as caught:
        load("jax")
    assert one_line(caught) == f"backend: found 'jax', expected one of {', '.join(names())}"


@pytest.mark.parametrize("name", sorted(NAMESPACE))
def test_a_backend_that_lacks_an_array_function_is_refused_by_its_name(name):
    backend = complete()
    assert check_backend(backend, "mine") is backend
    delattr(backend.namespace, name)
    with pytest.raises(InvalidArgument) as caught:
        check_backend(backend, "mine")
    assert one_line(caught).startswith(f"backend 'mine': missing namespace.{name}; hessiod.backends.contract says")


def test_linear_algebra_is_whole_or_absent():
    backend = complete()
    for name in LINEAR_ALGEBRA:
        delattr(backend.namespace, name)
    assert check_backend(backend, "mine") is backend
    backend.namespace.matmul = len
    with pytest.raises(
        InvalidArgument, match=r"missing namespace\.transpose, namespace\.concat_last, .*namespace\.eigh;"
    ):
        check_backend(backend, "mine")


def test_everything_that_is_missing_is_named_at_once():
    with pytest.raises(InvalidArgument) as caught:
        check_backend(
            types.SimpleNamespace(name="mine", namespace=types.SimpleNamespace(**dict.fromkeys(NAMESPACE))), "mine"
        )
    for attribute in ("routes", "dtypes", "optimizers", "versions", "devices", "from_numpy", "to_numpy", "trainer"):
        assert attribute in one_line(caught)
    assert "namespace" not in one_line(caught).split(";")[0]


@pytest.mark.parametrize(
    "reference", ["no_such_package.backend:BACKEND", "hessiod.backends.numpy:NO_SUCH_OBJECT", "hessiod.no_such:BACKEND"]
)
def test_a_backend_that_cannot_be_imported_is_unavailable_and_listed_with_the_reason(announce, reference):
    announce(mine=reference)
    with pytest.raises(BackendUnavailable) as caught:
        load("mine")
    assert "backend 'mine'" in one_line(caught)
    assert "cannot be imported: " in one_line(caught)
    listed = {listing.name: listing for listing in listings()}
    assert listed["mine"].backend is None
    assert listed["mine"].reason == str(caught.value)
    assert listed["numpy"].backend is load("numpy")


@pytest.mark.parametrize("name", ["numpy", "onnx", "torch", "mindspore"])
def test_a_card_says_what_the_backend_says(name):
    card, backend = card_of(registry._entry_points()[name]), load(name)
    assert (card.name, card.dtypes, card.optimizers) == (backend.name, backend.dtypes, tuple(backend.optimizers))
    assert [route.name for route in card.routes] == [route.name for route in backend.routes]
    found = backend.versions()
    assert {package: found[package] for package in card.versions()} == card.versions()


def test_a_backend_without_a_card_is_loaded_for_its_listing(announce, monkeypatch):
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(BACKEND=load("numpy")))
    announce(mine="mine:BACKEND", broken="no_such_package.backend:BACKEND")
    listed = {listing.name: listing for listing in cards()}
    assert listed["mine"].backend is load("numpy")
    assert isinstance(listed["numpy"].backend, Card)
    assert "cannot be imported" in listed["broken"].reason


def test_a_backend_whose_shared_library_is_missing_is_unavailable(announce, monkeypatch):
    def fail(entry):
        raise OSError("libascendcl.so: cannot open shared object file")

    announce(mine="mine:BACKEND")
    monkeypatch.setattr(EntryPoint, "load", fail)
    with pytest.raises(BackendUnavailable, match=r"backend 'mine'.*libascendcl\.so"):
        load("mine")


def test_an_incomplete_backend_is_listed_with_what_it_lacks(announce):
    announce(mine="types:SimpleNamespace")
    listed = {listing.name: listing for listing in listings()}
    assert listed["mine"].backend is None
    assert "missing name, namespace" in listed["mine"].reason


def test_every_error_is_a_hessiod_error_and_the_builtin_that_callers_expect():
    assert issubclass(InvalidArgument, HessiodError)
    assert issubclass(InvalidArgument, ValueError)
    assert issubclass(BackendUnavailable, HessiodError)
    assert issubclass(BackendUnavailable, ImportError)


def test_a_device_is_one_that_the_backend_has():
    class Several(NumpyBackend):
        def __init__(self, *found):
            self.found = found

        def devices(self):
            return self.found

    class Movable(Several):
        def on(self, device):
            return Movable(device, *(other for other in self.found if other != device))

    assert on_device(Several("cpu"), "cpu").devices() == ("cpu",)
    assert on_device(Movable("cpu", "npu:0"), "npu:0").devices() == ("npu:0", "cpu")
    with pytest.raises(InvalidArgument, match="device: found 'npu', expected one of cpu, npu:0"):
        on_device(Movable("cpu", "npu:0"), "npu")
    with pytest.raises(InvalidArgument, match="runs on cpu only"):
        on_device(Several("cpu", "npu:0"), "npu:0")
