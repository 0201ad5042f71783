"""vLLM's default settings, and bursts: what the small limits of the other sections hide.

All that a user need not set is left to vLLM: on a large device 1,024 sequences, the model's whole context,
a KV cache of what is left. Both engines reserve for that, on the device and in pinned host memory.

Then many requests with large images arrive at once, whole and pruned. The scheduler admits images to a step
by the tokens that prompts hold for them; pruning leaves few, and the encoder sees whole images all the same.
One encoder call could so hold many more tiles than start-up made room for: this section is red where it did.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil

from benchmarks.support.load import ask, bodies
from benchmarks.support.memory import GIB, Peak, device_bytes, settled, tree_bytes
from benchmarks.support.server import Server

from .section import Check, Section
from .speed import SETTINGS, wrong
from .workload import GPU, SMOKE, Workload

#: Setting -> what share of the workload's burst is sent: whole images take longer, and show what vLLM does.
_BURSTS = {"R = 1": 0.25, "R = 0.09": 1.0}
_WATCH = "benchmarks.gpu_check.encoder_watch.EncoderWatch"


def run(check: Check) -> Section:
    section, load = Section(), SMOKE if check.smoke else GPU
    load.pair.write(check.work)
    with _served(check, load) as (server, memory):
        for setting, share in _BURSTS.items():
            section.rows.append(_burst(section, load, server, setting, max(1, round(share * load.burst))))
        limits = _call(server, "watch_start")
    memory = {name: f"{peak.bytes / GIB:.1f} GiB" for name, peak in memory.items()}
    section.notes += [f"started in {server.seconds:.0f} s, {limits}", f"most memory in use: {memory}"]
    return section


@contextmanager
def _served(check: Check, load: Workload) -> Iterator[tuple[Server, dict[str, Peak]]]:
    """The guided server while the block runs, and its peaks of memory: of the device, of the machine."""
    pair, small = load.pair, check.work / load.pair.small.name
    flags = [
        f"--dtype={pair.dtype}", "--trust-remote-code", "--load-format=dummy", f"--sgl-small={small}",
        "--sgl-break-even=off", f"--worker-extension-cls={_WATCH}", *load.default_flags,
    ]  # fmt: skip
    developing = replace(check, environment={**check.environment, "VLLM_SERVER_DEV_MODE": "1"})
    server = Server(developing, "serve-defaults", check.work / pair.large.name, flags, 2 * pair.start_seconds)
    device = (lambda: tree_bytes(server.pid)) if check.smoke else device_bytes
    before = 0 if check.smoke else settled(device_bytes)
    free = psutil.virtual_memory().available
    with (
        Peak(lambda: device() - before) as on_device,
        Peak(lambda: free - psutil.virtual_memory().available) as on_host,
        server,
    ):
        yield server, {"device": on_device, "host": on_host}


def _burst(section: Section, load: Workload, server: Server, setting: str, requests: int) -> dict[str, Any]:
    """One row: every request is sent at once, each with an image of its own."""
    pair, options = load.pair, SETTINGS[setting]
    limits = _call(server, "watch_start")
    first = 1 + 1000 * list(SETTINGS).index(setting)  # no image twice
    seeds = range(first, first + requests)
    replies, seconds = ask(server, bodies(seeds, pair.image, load.max_tokens, options), requests)
    found = _call(server, "watch_read")
    images = max(1, limits["encoder_tokens"] // pair.visual_tokens)
    profiled = images * (pair.visual_tokens // load.tokens_per_tile)
    bad = dict.fromkeys(filter(None, (wrong(load, options, reply) for reply in replies)))
    section.failures += [f"{setting}: {text}" for text in list(bad)[:2]]
    section.expect(
        0 < found["largest_call"] <= profiled,
        f"{setting}: {found['largest_call']} tiles in one encoder call; start-up made room for {profiled}",
    )
    return {
        "setting": setting, "requests": requests, "requests_per_s": None if bad else requests / seconds,
        "slowest_s": max(reply.seconds for reply in replies), "largest_call_tiles": found["largest_call"],
        "profiled_tiles": profiled, "allocated_gib": found["allocated"] / GIB,
    }  # fmt: skip


def _call(server: Server, method: str) -> dict[str, int]:
    """Ask the large engine's only worker."""
    reply = server.post("/collective_rpc", json.dumps({"method": method}).encode())
    return reply["results"][0]
