"""Replacing one attribute of a class: loud when it is not what was expected, idempotent, reversible."""

import colorsys
import inspect

import pytest

from vllm_sgl.host.patch import unwrap, wrap


class Host:
    def method(self, a, b=1):
        return ("method", a, b)

    @classmethod
    def build(cls, config):
        return ("build", cls, config)

    @staticmethod
    def add(parser):
        return ("add", parser)


class Child(Host):
    pass


@pytest.fixture(autouse=True)
def restored():
    before = dict(vars(Host))
    yield
    for name in ("method", "build", "add"):
        unwrap(Host, name)
        assert vars(Host)[name] is before[name]


def louder(original):
    def replacement(*args, **kwargs):
        return ("wrapped", *original(*args, **kwargs))

    return replacement


def test_method():
    wrap(Host, "method", ("self", "a"), "fix.py", louder)
    assert Host().method(1, b=2) == ("wrapped", "method", 1, 2)


def test_class_method_stays_one_and_knows_the_class_it_was_called_on():
    wrap(Host, "build", ("cls", "config"), "fix.py", louder)
    assert Host.build(3) == ("wrapped", "build", Host, 3)
    assert Child.build(3) == ("wrapped", "build", Child, 3)
    assert isinstance(inspect.getattr_static(Host, "build"), classmethod)


def test_static_method_stays_one():
    wrap(Host, "add", ("parser",), "fix.py", louder)
    assert Host.add(5) == Host().add(5) == ("wrapped", "add", 5)


@pytest.mark.parametrize(("name", "parameters"), [("method", ("self",)), ("build", ("cls",)), ("add", ())])
def test_wrapping_twice_wraps_once(name, parameters):
    wrap(Host, name, parameters, "fix.py", louder)
    once = vars(Host)[name]
    wrap(Host, name, parameters, "fix.py", louder)
    assert vars(Host)[name] is once


@pytest.mark.parametrize(("name", "parameters"), [("method", ("self",)), ("build", ("cls",)), ("add", ())])
def test_unwrap_puts_the_very_original_back(name, parameters):
    original = vars(Host)[name]
    wrap(Host, name, parameters, "fix.py", louder)
    assert vars(Host)[name] is not original
    unwrap(Host, name)
    assert vars(Host)[name] is original
    unwrap(Host, name)
    assert vars(Host)[name] is original


def test_missing_attribute_names_what_is_missing_and_what_to_edit():
    with pytest.raises(RuntimeError, match=r"Host\.gone is missing in this vLLM.*adapt vllm_sgl/host/x\.py"):
        wrap(Host, "gone", (), "vllm_sgl/host/x.py", louder)
    assert not hasattr(Host, "gone")


@pytest.mark.parametrize("parameters", [("self", "b"), ("self", "a", "b", "c"), ("cls",)])
def test_other_signature_is_refused_and_nothing_is_replaced(parameters):
    original = vars(Host)["method"]
    with pytest.raises(RuntimeError, match=r"Host\.method takes \('self', 'a', 'b'\), expected .* adapt fix"):
        wrap(Host, "method", parameters, "fix.py", louder)
    assert vars(Host)["method"] is original


def test_patches_fit_the_installed_vllm():
    """Against the real classes: a vLLM that renamed something fails here and not in a server."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from vllm_sgl import plugin

    places = [(EngineArgs, "add_cli_args"), (EngineArgs, "from_cli_args"), (AsyncLLM, "from_vllm_config")]
    before = [inspect.getattr_static(*place) for place in places]
    try:
        for _ in range(2):
            plugin.install()
        changed = [inspect.getattr_static(*place) for place in places]
        assert all(a is not b for a, b in zip(before, changed, strict=True))
    finally:
        for place in places:
            unwrap(*place)
    assert all(inspect.getattr_static(*place) is old for place, old in zip(places, before, strict=True))


def test_a_function_of_a_module():
    before = colorsys.rgb_to_hsv
    wrap(colorsys, "rgb_to_hsv", ("r", "g"), "fix.py", louder)
    assert colorsys.rgb_to_hsv(1, 1, 1) == ("wrapped", 0.0, 0.0, 1)
    unwrap(colorsys, "rgb_to_hsv")
    assert colorsys.rgb_to_hsv is before
    with pytest.raises(RuntimeError, match=r"colorsys.rgb_to_hsv takes .*: adapt fix\.py"):
        wrap(colorsys, "rgb_to_hsv", ("x",), "fix.py", louder)
