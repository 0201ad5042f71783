"""Clients that go away: both engines stop working for them, and the server answers on."""

import httpx
import openai
import pytest

from tests.serve.asking import LONG, SHORT, ask, request, small_alone, text
from tests.support.server import frozen, poll
from tools.tiny_internvl.tokenizer import IM_END


def assert_idle(server):
    def idle():
        metrics = server.metrics()
        return not metrics.total("vllm:num_requests_running") + metrics.total("vllm:num_requests_waiting")

    poll(idle, what="an idle large engine")


def assert_answers_on(server, qwen2_pair):
    completion = ask(server, *SHORT, sgl={"exit_threshold": 0}, max_tokens=32)
    assert completion.sgl["decision"] == "exit"
    assert text(completion) == small_alone(qwen2_pair[0], *SHORT).answer
    assert ask(server, *SHORT, max_tokens=4).sgl["decision"] == "prune"


@pytest.mark.parametrize("streamed", [False, True])
def test_client_gone_while_the_guide_looks(server, qwen2_pair, streamed):
    ask(server, *LONG, max_tokens=2)
    before = server.metrics()
    asked = request(*LONG, stream=streamed, timeout=1.5)
    # No decision can be made, so neither a body nor a chunk is sent before the client gives up.
    with frozen(server.small_engine()), pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)):
        next(iter(server.client.chat.completions.create(model=server.model, **asked)))
    assert_idle(server)
    after = server.metrics()
    for name in ("sgl:requests_total", "vllm:request_success_total", "vllm:prompt_tokens_total"):
        assert after.total(name) == before.total(name)
    assert_answers_on(server, qwen2_pair)


def test_client_gone_while_the_small_model_answers(server, qwen2_pair):
    """The small engine's work ends with the client: seen by its processor time."""
    small = server.small_engine()
    sgl = {"guide_tokens": 300, "exit_threshold": 1}
    # Of ignore_eos the guide would not hear: it stops at its own end.
    endless = {"max_tokens": 300, "sgl": sgl, "extra": {"bad_words": [IM_END]}}

    def at_rest():
        return small.cpu_percent(interval=0.5) < 10

    def spent(ask_and_wait):
        poll(at_rest, what="rest of the small engine")
        before = sum(small.cpu_times()[:2])
        ask_and_wait()
        ask(server, *SHORT, max_tokens=1)
        poll(at_rest, what="rest of the small engine")
        return sum(small.cpu_times()[:2]) - before

    def to_the_end():
        assert ask(server, *LONG, **endless).usage.completion_tokens == 300

    def give_up():
        with frozen(server.small_engine()), pytest.raises(openai.APITimeoutError):
            ask(server, *LONG, timeout=1.5, **endless)

    whole = spent(to_the_end)
    assert spent(give_up) < whole / 2
    assert_answers_on(server, qwen2_pair)


def test_client_gone_while_the_large_model_answers(server, qwen2_pair):
    """One of a few tries must do: vLLM's server, without SGL too, now and then (one request of a hundred)
    hands on nothing of a stream before the whole answer is generated."""
    asked = request(*LONG, stream=True, max_tokens=700, extra={"ignore_eos": True})

    def generated_for_a_client_that_leaves():
        before = server.metrics()
        with server.client.chat.completions.create(model=server.model, **asked) as chunks:
            next(chunk for chunk in chunks if chunk.choices[0].delta.content)
        assert_idle(server)
        after = server.metrics()
        guided = "sgl:requests_total"
        assert after.total(guided, decision="prune") == before.total(guided, decision="prune") + 1
        return after.total("vllm:generation_tokens_total") - before.total("vllm:generation_tokens_total")

    assert any(generated_for_a_client_that_leaves() < 700 for _ in range(4))
    assert_answers_on(server, qwen2_pair)


def test_half_of_eight_clients_leave(server, qwen2_pair, clients):
    expected = text(ask(server, *LONG, max_tokens=24))

    def leave():
        asked = request(*LONG, stream=True, max_tokens=600, extra={"ignore_eos": True})
        with server.new_client().chat.completions.create(model=server.model, **asked) as chunks:
            next(iter(chunks))

    stay = [clients.submit(ask, server, *LONG, max_tokens=24) for _ in range(4)]
    gone = [clients.submit(leave) for _ in range(4)]
    for future in gone:
        future.result()
    assert [text(future.result()) for future in stay] == [expected] * 4
    assert_idle(server)
    assert_answers_on(server, qwen2_pair)
