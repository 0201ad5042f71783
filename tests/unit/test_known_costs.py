"""Costs that an earlier start measured: found again by all that they depend on, and never trusted blindly."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.unit.test_costs import Machine, by_tiles
from tests.unit.test_small_engine import configs
from vllm_sgl.config import SGLConfig
from vllm_sgl.decide.costs import Costs
from vllm_sgl.engine import known_costs, measure_costs
from vllm_sgl.engine.known_costs import KnownCosts
from vllm_sgl.host.start import speed_facts

COSTS = Costs((0.1, 1e-3), 0.01, ((32, 0.2), (128, 0.9)), vision=0.5, seen=((16, 4), (64, 4)))


def of(pair, small_args=None, sgl=None, **large):
    return KnownCosts.of(*configs(pair, small_args, **large), SGLConfig(small=str(pair[0]), **(sgl or {})))


@pytest.fixture
def known(tmp_path):
    return KnownCosts(tmp_path / "sgl" / "costs", {"pair": ["a", ("b", 1)]})


def test_what_is_kept_is_read_again(known):
    assert known.read() is None
    assert known.keep(COSTS) == f"kept in {known.path}"
    costs, measured = KnownCosts(known.path.parent, {"pair": ["a", ("b", 1)]}).read()
    assert costs == COSTS
    assert measured.startswith("20")
    assert KnownCosts(known.path.parent, {"pair": ["a", ("b", 2)]}).read() is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2], lambda text: "", lambda text: "[]", lambda text: "null",
        lambda text: text.replace('"decode"', '"other"'), lambda text: text.replace("0.01", '"slow"'),
        lambda text: text.replace('"b"', '"c"'), lambda text: "\x00\xff",
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_thing_is_written_anew(known, spoil, caplog):
    known.keep(COSTS)
    known.path.write_text(spoil(known.path.read_text()))
    assert known.read() is None
    assert f"{known.path} holds no costs" in caplog.text
    known.keep(COSTS)
    assert known.read()[0] == COSTS


def test_any_number_of_servers_may_write_at_once(known):
    given = [replace(COSTS, decode=float(number)) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(known.keep, given)) == {f"kept in {known.path}"}
        assert known.read()[0] in given
    assert list(known.path.parent.iterdir()) == [known.path]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    assert KnownCosts(tmp_path / "file", {}).keep(COSTS).startswith("not kept (")


def test_the_latest_files_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(known_costs, "MOST", 3)
    several = [KnownCosts(tmp_path, number) for number in range(5)]
    for age, one in enumerate(several):
        one.keep(COSTS)
        os.utime(one.path, (age, age))
    several[4].keep(COSTS)
    assert [one.read() is not None for one in several] == [False, False, True, True, True]


OTHERS = {
    "context": {"max_model_len": 512},
    "batch": {"max_num_seqs": 3},
    "cache": {"enable_prefix_caching": False},
    "small context": {"small_args": {"max_model_len": 320}},
    "small cache": {"small_args": {"enable_prefix_caching": False}},
    "rows": {"sgl": {"query_rows": "prompt"}},
    "vision": {"sgl": {"policy": "auto"}},
    "tiles": {"mm_processor_kwargs": {"max_dynamic_patch": 2}},
    "adapters": {"enable_lora": True},
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_configuration_is_measured_for_itself(qwen2_pair, other):
    assert of(qwen2_pair).path != of(qwen2_pair, **OTHERS[other]).path


def test_what_changes_no_pass_changes_no_file(qwen2_pair):
    retention = of(qwen2_pair, sgl={"retention": 0.1, "exit_threshold": 0.5})
    assert of(qwen2_pair).path == of(qwen2_pair).path == retention.path


@pytest.mark.parametrize("change", ["variable", "version", "cores"])
def test_another_machine_measures_for_itself(qwen2_pair, monkeypatch, change):
    before = of(qwen2_pair).path
    if change == "variable":
        monkeypatch.setenv("OMP_NUM_THREADS", "77")
    elif change == "version":
        monkeypatch.setattr(speed_facts.torch, "__version__", "1.0")
    else:
        monkeypatch.setattr(speed_facts.os, "sched_getaffinity", lambda pid: range(77))
    assert of(qwen2_pair).path != before


def test_costs_lie_in_the_cache_folder_of_vllm(qwen2_pair, monkeypatch, tmp_path):
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    found = of(qwen2_pair)
    assert found.path.parent == tmp_path / "sgl" / "costs"
    found.keep(COSTS)
    about = json.loads(found.path.read_text())["about"]
    assert about["small"]["model"]["architectures"] == ["SGLInternVLChatModel"]
    assert str(qwen2_pair[0]) not in found.path.read_text()  # wherever the same model lies


async def start(machine, known, **settings):
    config = SGLConfig.parse({"small": "S", **settings})
    return await measure_costs.known_or_measured(
        machine.engine, machine.generate, machine, machine, config, known
    )


async def test_only_the_first_start_measures(monkeypatch, known, caplog):
    first = await start(Machine(monkeypatch, by_tiles), known)
    assert f"kept in {known.path}" in caplog.text
    again = Machine(monkeypatch, by_tiles)
    assert await start(again, known) == first
    assert again.looked == []
    assert "as measured on 20" in caplog.text
    assert str(known.path) in caplog.text
    anew = Machine(monkeypatch, by_tiles)
    assert await start(anew, known, break_even="measure") == first
    assert anew.looked


async def test_figures_that_did_not_settle_are_not_kept(monkeypatch, known, caplog):
    await start(Machine(monkeypatch, by_tiles, load=(4, 3, 2, 1)), known)
    assert known.read() is None
    assert "so nothing is kept" in caplog.text


async def test_a_pair_without_costs_has_no_file(monkeypatch, known):
    machine = Machine(monkeypatch, by_tiles, images=0)
    assert await start(machine, known) is None
    assert known.read() is None
    assert SimpleNamespace(path=known.path).path.exists() is False


def test_drafts_of_another_model_are_others():
    def drafting(model, tokens):
        return speed_facts._drafts(
            SimpleNamespace(method="draft_model", model=model, num_speculative_tokens=tokens)
        )

    assert drafting("a", 3) != drafting("b", 3)
    assert drafting("a", 3) != drafting("a", 4)
    assert speed_facts._drafts(None) is None
