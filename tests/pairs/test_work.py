"""What `vllm-sgl pairs` says of work and gain, of models at their true sizes."""

import pytest
from vllm import EngineArgs

from benchmarks.true_size import MODELS, build
from tests.memory import true_sizes
from vllm_sgl.commands.pairs.judging import judge_pair
from vllm_sgl.pair import known
from vllm_sgl.pair.work import SHARES, Work, speed_up, work_of


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("sizes"), {}
    more = {
        "Qwen3-VL-30B-A3B": true_sizes.qwen3_vl_moe(),
        "Qwen3-VL-235B-A22B": true_sizes.qwen3_vl_moe(4096, 94, 64, 1536),
        "Qwen3.5-27B": true_sizes.qwen3_5(64, 5120, 24, 4, 48),
        "Qwen3.5-35B-A3B": true_sizes.qwen3_5_moe(40, 2048, 16, 32, 256, 8, 512),
        "Qwen3.5-397B-A17B": true_sizes.qwen3_5_moe(60, 4096, 32, 64, 512, 10, 1024),
    }

    def of(name):
        if name not in found:
            path = folder / name
            path = true_sizes.write(path, more[name], {}) if name in more else build(MODELS[name], path)
            made = EngineArgs(str(path), trust_remote_code=True, load_format="dummy").create_engine_config()
            found[name] = work_of(made.model_config)
        return found[name]

    return of


@pytest.mark.parametrize(
    ("small", "large", "most"),
    [
        ("Qwen3-VL-2B", "Qwen3-VL-32B", (2.1, 3.3)),
        ("Qwen3-VL-2B", "Qwen3.5-27B", (2.0, 3.0)),
        ("Qwen3-VL-2B", "Qwen3-VL-30B-A3B", (0.8, 0.9)),
        ("InternVL2-2B", "InternVL2-26B", (1.3, 1.5)),
    ],
)
def test_the_bound_is_of_active_parameters(work, small, large, most):
    found = [speed_up(work(large), work(small), kept) for kept in SHARES]
    assert found == pytest.approx(most, abs=0.06)


def test_a_guide_that_sees_fewer_tokens_costs_less():
    large, small = Work(30, 2), Work(2, 2)
    assert speed_up(large, small, 0.5) == 32 / (4 + 2 + 15)
    assert speed_up(large, small, 0.5, seen=0.25) == 32 / (1 + 2 + 15)


@pytest.mark.parametrize("series", [one for one in known.SERIES if one.gains], ids=lambda one: one.name)
def test_the_table_of_series_says_the_bound(work, series):
    for small, large, said in series.gains:
        assert said == pytest.approx(speed_up(work(large), work(small), SHARES[0]), abs=0.051)
        assert known._size(large) in series.large.replace("Llama3-", "")


def test_the_table_is_sorted_by_it():
    gains = [one.gains[0][2] if one.gains else 0.0 for one in known.SERIES]
    assert gains == sorted(gains, reverse=True)


def test_the_command_says_where_a_guide_hardly_pays(qwen2_pair):
    """The tiny pair is two to one in size; the other way round nothing could be gained."""
    small, large = map(str, qwen2_pair)
    found = judge_pair(large, small, trust_remote_code=True)
    assert "times as fast as without a guide: 0." in found.gain
    assert "with 35 %, 0." in found.gain
    assert "Below 1.1 this pair hardly pays by pruning" in str(found)
    assert "(decoder + vision encoder): guide " in found.gain
