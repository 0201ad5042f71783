"""gpu_check's bursts: tiles per encoder call are counted, and more than were profiled are a failure."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu_check import __main__, default_settings
from benchmarks.gpu_check.encoder_watch import EncoderWatch
from benchmarks.gpu_check.section import Section
from benchmarks.gpu_check.speed import wrong
from benchmarks.gpu_check.workload import GPU, SMOKE
from benchmarks.support.load import Reply

TOKENS = SMOKE.pair.visual_tokens


class Worker(EncoderWatch):
    """As much of vLLM's worker as the watch needs."""

    def __init__(self) -> None:
        class Vision(torch.nn.Module):
            def forward(self, pixel_values):
                return pixel_values

        self.model = torch.nn.Module()
        self.model.vision_model = Vision()
        scheduler = SimpleNamespace(
            max_num_seqs=8, max_num_batched_tokens=512, max_num_encoder_input_tokens=600
        )
        self.vllm_config = SimpleNamespace(
            scheduler_config=scheduler, model_config=SimpleNamespace(max_model_len=1024)
        )

    def get_model(self):
        return self.model


def test_largest_encoder_call():
    worker = Worker()
    assert worker.watch_start()["encoder_tokens"] == 600
    encoder = worker.model.vision_model
    for tiles in (3, 7, 2):
        encoder(pixel_values=torch.zeros(tiles, 3, 4, 4))
    assert worker.watch_read()["largest_call"] == 7
    worker.watch_start()
    assert worker.watch_read()["largest_call"] == 0
    encoder(torch.zeros(4, 3, 4, 4))
    assert worker.watch_read()["largest_call"] == 4
    assert len(encoder._forward_pre_hooks) == 1


def reply(kept: int, tokens: int = SMOKE.max_tokens) -> Reply:
    usage = {"prompt_tokens": TOKENS + 70, "completion_tokens": tokens}
    sgl = {"decision": "prune", "visual_tokens": TOKENS, "kept_tokens": kept}
    return Reply(0.5, "", usage, sgl)


@pytest.mark.parametrize(
    ("largest", "failures"),
    [(6, []), (15, ["R = 0.09: 15 tiles in one encoder call; start-up made room for 6"]), (0, ["0 tiles"])],
)
def test_more_tiles_than_profiled_are_a_failure(largest, failures, monkeypatch):
    answers = {
        "watch_start": {"encoder_tokens": 2 * TOKENS + 100},  # two whole images of three tiles
        "watch_read": {"largest_call": largest, "allocated": 1 << 30},
    }
    monkeypatch.setattr(default_settings, "_call", lambda server, method: answers[method])
    monkeypatch.setattr(default_settings, "ask", lambda *_: ([reply(17)] * 4, 2.0))
    section = Section()
    row = default_settings._burst(section, SMOKE, None, "R = 0.09", 4)
    assert (row["profiled_tiles"], row["largest_call_tiles"], row["requests_per_s"]) == (6, largest, 2.0)
    assert len(section.failures) == len(failures)
    assert all(text in found for text, found in zip(failures, section.failures, strict=True))


def test_wrong_answers_have_no_rate(monkeypatch):
    answers = {
        "watch_start": {"encoder_tokens": TOKENS},
        "watch_read": {"largest_call": 3, "allocated": 0},
    }
    monkeypatch.setattr(default_settings, "_call", lambda server, method: answers[method])
    monkeypatch.setattr(default_settings, "ask", lambda *_: ([reply(16)] * 4, 2.0))
    section = Section()
    row = default_settings._burst(section, SMOKE, None, "R = 0.09", 4)
    assert row["requests_per_s"] is None
    assert "kept_tokens': 17" in section.failures[0]


def test_what_a_reply_must_say():
    pruned = {"sgl_retention": 0.09}
    assert wrong(SMOKE, pruned, reply(17)) is None
    assert "answer tokens" in wrong(SMOKE, pruned, reply(17, tokens=1))
    assert "plain vLLM answered with an sgl report" in wrong(SMOKE, None, reply(17))


def test_on_a_device_nothing_is_set():
    assert GPU.default_flags == ()


def test_no_two_sections_share_a_name():
    names = [name for stage in __main__.STAGES for _, name, _ in stage]
    assert len(names) == len(set(names))
