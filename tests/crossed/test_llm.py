"""A guide with fewer tiles in ``vllm_sgl.LLM``: its costs count what it sees, and thumbnails rank apart."""

import pytest
from vllm import SamplingParams

import vllm_sgl
from tests.support.engines import user
from tests.support.images import QUESTIONS, random_image

from .pairs import PAIRS

#: Six tiles and a thumbnail for the large model, two and a thumbnail for the guide, 16 visual tokens each.
SIZE, TILE = (300, 200), 16


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    crossed = PAIRS["fewer tiles"]
    small, large = crossed.build(tmp_path_factory.mktemp("crossed"))
    llm = vllm_sgl.LLM(
        str(large), sgl_small=str(small), sgl_small_args=dict(crossed.small_args), sgl_views="separate",
        sgl_follow_ups="off",
        trust_remote_code=True, enforce_eager=True, dtype="float32", max_model_len=1024,
        kv_cache_memory_bytes=64 << 20, max_num_seqs=8, limit_mm_per_prompt={"image": 2},
    )  # fmt: skip
    yield llm
    llm.shutdown()


def test_costs_count_what_the_guide_sees(llm):
    """Of one tile, and of all images that have more for the large model."""
    costs = llm.llm_engine.costs
    assert costs.guidance(3 * TILE, 1) >= costs.guidance(TILE, 1) > 0
    assert costs.seen[0] == (TILE, TILE)
    assert costs.seen[-1] == (7 * TILE, 3 * TILE)
    assert costs.seen_tokens(20 * TILE) == 3 * TILE


def test_both_views_keep_the_same_share(llm, monkeypatch):
    monkeypatch.setattr(llm.llm_engine._engine._ready.result(), "_costs", None)
    image = random_image(1, *SIZE)
    params = SamplingParams(temperature=0, max_tokens=8, extra_args={"sgl_retention": 0.35})
    outputs = llm.chat([[user(question, image)] for question in QUESTIONS[:4]], params, use_tqdm=False)
    for output in outputs:
        report = output.sgl
        assert (report.decision, report.visual_tokens, report.kept_tokens) == ("prune", 7 * TILE, 39)
        (kept,) = report.kept
        assert abs(int((kept >= 6 * TILE).sum()) - 0.35 * TILE) <= 1
    # A mask is about the question: what is carried is what the guide saw in it.
    assert len({tuple(output.sgl.kept[0].tolist()) for output in outputs}) == 4
