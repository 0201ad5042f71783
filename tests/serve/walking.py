"""A server answers what the walk in this process gives: for pairs that do not share a prompt."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from tests.serve.asking import SIZE, ask, stream, text
from tests.support.engines import user
from tests.support.images import random_image
from tests.support.server import START_TIMEOUT, Server, poll
from vllm_sgl.core import Outcome

#: Conversation, longest answer and ``sgl_*`` keys to the outcome and the text of the answer.
Walked = Callable[..., tuple[Outcome, str]]
#: Seed of the image that questions are about.
IMAGE = 1


def turn(question: str, seed: int = IMAGE) -> dict[str, Any]:
    return user(question, random_image(seed, *SIZE))


def of(report: Mapping[str, Any]) -> tuple[str, str | None, int]:
    """What was decided."""
    return report["decision"], report["reason"], report["kept_tokens"]


def check_exit_in_a_stream(server: Server, question: str, outcome: Outcome, answer: str) -> None:
    """outcome, answer: of the walk."""
    usage = {"stream_options": {"include_usage": True}}
    chunks = stream(server, question, IMAGE, sgl={"exit_threshold": 0}, max_tokens=40, **usage)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == answer
    assert choices[-1].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == len(outcome.answer.token_ids)
    assert of(chunks[-1].sgl) == ("exit", None, 0)


def check_clients(
    server: Server, clients: ThreadPoolExecutor, walked: Walked, asked: Iterable[tuple[str, dict[str, Any]]],
    max_tokens: int,
) -> None:  # fmt: skip
    """Asked all at once, everybody gets the own answer.

    Args:
        asked: questions and their settings; some exit, the others are pruned.
    """
    futures = [
        (clients.submit(ask, server, question, IMAGE, sgl=sgl, max_tokens=max_tokens), question, sgl)
        for question, sgl in asked
    ]
    for future, question, sgl in futures:
        own = {f"sgl_{name}": value for name, value in sgl.items()}
        outcome, answer = walked([turn(question)], max_tokens, **own)
        completion, report = future.result(), outcome.report
        assert text(completion) == answer
        assert of(completion.sgl) == (report.decision, report.reason, report.kept_tokens)
    assert {future.result().sgl["decision"] for future, _, _ in futures} == {"prune", "exit"}


def check_a_killed_guide(server: Server, clients: ThreadPoolExecutor, question: str) -> None:
    """Nobody loses an answer; without the guide it is the large model's, and the guide comes back."""
    expected, pruned = (text(ask(server, question, IMAGE, sgl=sgl)) for sgl in ({"enabled": 0}, None))
    small = server.small_engine()
    family = [small, *small.children(recursive=True)]
    futures = [clients.submit(ask, server, question, IMAGE) for _ in range(24)]
    poll(lambda: sum(future.done() for future in futures) >= 4, what="load on the server")
    small.kill()
    for future in futures:
        completion = future.result()
        bypassed = completion.sgl["decision"] == "bypass"
        assert completion.sgl["reason"] in ({"guide_dead", "guide_failed"} if bypassed else {None})
        assert text(completion) == (expected if bypassed else pruned)
    after = ask(server, question, IMAGE, sgl={"exit_threshold": 0})
    assert of(after.sgl) == ("bypass", "guide_dead", after.sgl["visual_tokens"])
    assert text(after) == expected
    assert not psutil.wait_procs(family, timeout=30)[1]
    assert server.get("/health")[1]["sgl-guide"] == "down"

    def guided() -> bool:
        return ask(server, question, IMAGE).sgl["decision"] == "prune"

    poll(guided, START_TIMEOUT, "a guide that was started again")
    assert text(ask(server, question, IMAGE)) == pruned
