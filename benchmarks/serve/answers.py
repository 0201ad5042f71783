"""Both sides answer a fixed set; without that no figure means anything."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from benchmarks.support.load import Reply, ask, body
from benchmarks.support.server import Server
from benchmarks.support.workspace import BenchmarkError
from vllm_sgl.prune.base import kept_count

from .presets import Preset
from .settings import Setting
from .sources import Request

#: Share of questions that plain vLLM must answer rightly where the right answers are known. The shipped large
#: model has 97 %: fewer than three in four of 16 or more are no accident.
READS = 0.75
_NEVER, _ALWAYS = 1.0, 0.0  # thresholds; a score of exactly 1 takes probabilities of exactly 1


def answer(
    server: Server, preset: Preset, requests: Sequence[Request], xargs: dict[str, Any] | None = None
) -> list[Reply]:
    """Greedy answers, one at a time."""
    asked, longest = preset.asked, preset.asked.max_tokens
    made = [body(request.content, longest, xargs, asked.fixed_length) for request in requests]
    return ask(server, made, clients=1)[0]


def right(requests: Sequence[Request], plain: Sequence[Reply]) -> None:
    """The large model, widened or not, still reads.

    Raises:
        BenchmarkError: where plain vLLM answers too few questions rightly.
    """
    worth = [request.worth(reply.text) for request, reply in zip(requests, plain, strict=True)]
    if sum(worth) < READS * len(worth):
        raise BenchmarkError(
            f"wrong answers, so no figures: plain vLLM has {sum(worth):g} of {len(worth)} questions right, "
            f"expected {READS:.0%}; is this the trained model?"
        )


def same(replies: Sequence[Reply], plain: Sequence[Reply]) -> None:
    """Another layout of plain vLLM answers alike.

    Raises:
        BenchmarkError: with every difference.
    """
    both = zip(replies, plain, strict=True)
    if wrong := [f"{one.text!r}, plain vLLM {other.text!r}" for one, other in both if one.text != other.text]:
        raise BenchmarkError("vLLM's default layout answers otherwise, so no figures:\n" + "\n".join(wrong))


def check(server: Server, preset: Preset, requests: Sequence[Request], plain: Sequence[Reply]) -> None:
    """Never-pruning SGL, without and with the guide, answers as plain vLLM; pruning keeps what it should.

    What is compared word by word is asked about images that the server has not seen: a hit in the prefix
    cache rounds differently, which in bfloat16 is now and then another word.

    Args:
        requests, plain: an even number of requests, and plain vLLM's replies.

    Raises:
        BenchmarkError: with every difference.
    """
    wrong = [f"plain: {reply.sgl}" for reply in plain if reply.sgl is not None]
    halves = slice(len(requests) // 2), slice(len(requests) // 2, len(requests))
    pruning = [Setting(retention=retention) for retention in preset.retentions if retention < 1]
    asked = [(Setting(exits=True), halves[0]), (Setting(), halves[1])]
    asked += [(setting, halves[0]) for setting in pruning]
    for setting, part in asked:
        replies = answer(server, preset, requests[part], replace(setting, threshold=_NEVER).xargs(_NEVER))
        wrong += [
            f"{setting}: {why}"
            for request, reply, other in zip(requests[part], replies, plain[part], strict=True)
            for why in differences(setting, reply, other, request.visual_tokens, preset.asked.fixed_length)
        ]
    if wrong:
        raise BenchmarkError("wrong answers, so no figures:\n" + "\n".join(dict.fromkeys(wrong)))


def differences(
    setting: Setting, reply: Reply, plain: Reply, visual_tokens: int, fixed_length: bool
) -> list[str]:
    """What is wrong with a reply of SGL that must not exit. fixed_length: whether an answer about fewer
    visual tokens must be as long."""
    expected = {
        "decision": "prune" if setting.guided else "bypass",
        "visual_tokens": visual_tokens,
        "kept_tokens": kept_count(setting.retention, visual_tokens),
    }
    found = {name: (reply.sgl or {}).get(name) for name in expected}
    if not setting.exact and 0 < (found["kept_tokens"] or 0) < expected["kept_tokens"]:
        found["kept_tokens"] = expected["kept_tokens"]
    wrong = [] if found == expected else [f"expected {expected}, the report says {reply.sgl}"]
    alike = setting.retention == 1
    usage = [one.usage if alike or fixed_length else one.usage.get("prompt_tokens") for one in (reply, plain)]
    if usage[0] != usage[1]:
        wrong.append(f"usage {usage[0]}, plain vLLM has {usage[1]}")
    if alike and reply.text != plain.text:
        wrong.append(f"answers {reply.text!r}, plain vLLM {plain.text!r}")
    return wrong


def threshold(server: Server, preset: Preset, requests: Sequence[Request]) -> float:
    """The median exit score, so that about half of all requests exit.

    Raises:
        BenchmarkError: where a request does not exit at a threshold of 0.
    """
    xargs = {"sgl_retention": min(preset.retentions), "sgl_exit_threshold": _ALWAYS}
    reports = [reply.sgl or {} for reply in answer(server, preset, requests, xargs)]
    if stayed := [report for report in reports if report.get("decision") != "exit"]:
        raise BenchmarkError(f"expected an exit at threshold 0, the report says {stayed[0]}")
    return median(report["score"] for report in reports)
