"""More at once than the engines hold: nobody gets another one's answer, and nobody is lost."""

import threading
from itertools import count as numbers

import pytest

from tests.hard.clients import Result, at_once, connect, post
from tests.hard.questions import Reference, questions
from tests.hard.scale import count, say
from tests.support.server import Server

#: Seconds; on busy cores 256 requests take a while.
TIMEOUT = 900
DIFFERENT = count(ci=16, full=96)


def flags(pair, large_kv, small_kv, sequences):
    return [
        f"--sgl-small={pair[0]}", "--sgl-break-even=off", "--sgl-guide-timeout=600",
        "--sgl-guide-memory=0", "--sgl-follow-ups=off",
        f"--max-num-seqs={sequences}", f"--kv-cache-memory-bytes={large_kv}",
        f'--sgl-small-args={{"kv_cache_memory_bytes": {small_kv}}}',
    ]  # fmt: skip


def ask_all(server, asked, clients):
    """So many clients share the questions; results in the order of the questions."""
    results: list[Result | None] = [None] * len(asked)
    places = numbers()

    def work():
        with connect(server, TIMEOUT) as http:
            while (place := next(places)) < len(asked):
                results[place] = post(http, asked[place].body(server))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize(
    ("large_kv", "small_kv"),
    # The first one: little more than one sequence of 1,024 tokens each.
    [(4_000_000, 2_500_000), (9_000_000, 4_000_000)][: count(ci=1, full=2)],
)
def test_tiny_kv_caches(qwen2_pair, tmp_path, large_kv, small_kv):
    with Server(qwen2_pair[1], tmp_path / "log", flags(qwen2_pair, large_kv, small_kv, 32)) as server:
        reference = Reference(server, questions(DIFFERENT))
        asked = reference.questions * 4
        results = ask_all(server, asked, clients=32)
        ways = reference.check_all(asked, results)
        preempted = server.metrics().total("vllm:num_preemptions_total")
        slowest = max(result.ended - result.sent for result in results)
        say(
            f"KV caches of {large_kv} and {small_kv} bytes: {len(asked)} requests of 32 clients, all right: "
            f"{dict(ways)}; {preempted:.0f} preemptions, slowest {slowest:.1f} s"
        )
        assert preempted > 0
        assert "ERROR" not in server.log_text()
        # Nothing is left behind in either engine: the same again, alone.
        reference.check_all(reference.questions[:8], ask_all(server, reference.questions[:8], clients=1))


def test_burst(qwen2_pair, tmp_path):
    rounds, at_a_time = count(ci=1, full=3), count(ci=64, full=256)
    options = flags(qwen2_pair, 256 << 20, 128 << 20, 256)
    with Server(qwen2_pair[1], tmp_path / "log", options) as server:
        reference = Reference(server, questions(DIFFERENT, seed=1))
        asked = (reference.questions * -(-at_a_time // DIFFERENT))[:at_a_time]
        bodies = [question.body(server) for question in asked]
        for number in range(rounds):
            results = at_once(server, bodies, TIMEOUT)
            ways = reference.check_all(asked, results)
            slowest = max(result.ended - result.sent for result in results)
            say(f"burst {number + 1}: {at_a_time} at once, all right: {dict(ways)}; slowest {slowest:.1f} s")
        assert "ERROR" not in server.log_text()
