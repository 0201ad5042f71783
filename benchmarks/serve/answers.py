"""Both sides answer a fixed set; without that no figure means anything."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.serving.load import Reply, ask, bodies
from benchmarks.serving.server import Server
from benchmarks.serving.workspace import BenchmarkError
from vllm_sgl.decision import kept_count

from .presets import Preset
from .settings import Setting

_NEVER, _ALWAYS = 1.0, 0.0  # thresholds; a score of exactly 1 takes probabilities of exactly 1


def answer(
    server: Server, preset: Preset, seeds: Sequence[int], xargs: dict[str, Any] | None = None
) -> list[Reply]:
    """Greedy answers, one at a time."""
    return ask(server, bodies(seeds, preset.pair.image, preset.max_tokens, xargs), clients=1)[0]


def same(replies: Sequence[Reply], plain: Sequence[Reply]) -> None:
    """Another layout of plain vLLM answers alike.

    Raises:
        BenchmarkError: with every difference.
    """
    both = zip(replies, plain, strict=True)
    if wrong := [f"{one.text!r}, plain vLLM {other.text!r}" for one, other in both if one.text != other.text]:
        raise BenchmarkError("vLLM's default layout answers otherwise, so no figures:\n" + "\n".join(wrong))


def check(server: Server, preset: Preset, seeds: Sequence[int], plain: Sequence[Reply]) -> None:
    """Never-pruning SGL, without and with the guide, answers as plain vLLM; pruning keeps what it should.

    What is compared word by word is asked about images that the server has not seen: a hit in the prefix
    cache rounds differently, which in bfloat16 is now and then another word.

    Args:
        seeds, plain: of an even number of requests, and plain vLLM's replies.

    Raises:
        BenchmarkError: with every difference.
    """
    wrong = [f"plain: {reply.sgl}" for reply in plain if reply.sgl is not None]
    halves = slice(len(seeds) // 2), slice(len(seeds) // 2, len(seeds))
    pruning = [Setting(retention=retention) for retention in preset.retentions if retention < 1]
    asked = [(Setting(exits=True), halves[0]), (Setting(), halves[1])]
    asked += [(setting, halves[0]) for setting in pruning]
    for setting, part in asked:
        replies = answer(server, preset, seeds[part], setting.xargs(_NEVER))
        wrong += [
            f"{setting}: {why}"
            for reply, other in zip(replies, plain[part], strict=True)
            for why in differences(setting, reply, other, preset)
        ]
    if wrong:
        raise BenchmarkError("wrong answers, so no figures:\n" + "\n".join(dict.fromkeys(wrong)))


def differences(setting: Setting, reply: Reply, plain: Reply, preset: Preset) -> list[str]:
    """What is wrong with a reply of SGL that must not exit."""
    total = preset.pair.visual_tokens
    expected = {
        "decision": "prune" if setting.guided else "bypass",
        "visual_tokens": total,
        "kept_tokens": kept_count(setting.retention, total),
    }
    found = {name: (reply.sgl or {}).get(name) for name in expected}
    wrong = [] if found == expected else [f"expected {expected}, the report says {reply.sgl}"]
    if reply.usage != plain.usage:
        wrong.append(f"usage {reply.usage}, plain vLLM has {plain.usage}")
    if setting.retention == 1 and reply.text != plain.text:
        wrong.append(f"answers {reply.text!r}, plain vLLM {plain.text!r}")
    return wrong


def threshold(server: Server, preset: Preset, seeds: Sequence[int]) -> float:
    """The median exit score, so that about half of all requests exit.

    Raises:
        BenchmarkError: where a request does not exit at a threshold of 0.
    """
    xargs = {"sgl_retention": min(preset.retentions), "sgl_exit_threshold": _ALWAYS}
    reports = [reply.sgl or {} for reply in answer(server, preset, seeds, xargs)]
    if stayed := [report for report in reports if report.get("decision") != "exit"]:
        raise BenchmarkError(f"expected an exit at threshold 0, the report says {stayed[0]}")
    return median(report["score"] for report in reports)
