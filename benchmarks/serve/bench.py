"""Load by ``vllm bench serve``, and what the server counted meanwhile."""

import json
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.support.load import ENDLESS
from benchmarks.support.server import Scrape, Server
from benchmarks.support.workspace import ROOT, BenchmarkError, Workspace, end_group
from vllm_sgl.prune.base import kept_count

from .presets import Preset
from .settings import Step
from .sources import Request

_LOAD_SECONDS, _START_SECONDS = 1200, 300
_FLAGS = (
    "--backend=openai-chat", "--endpoint=/v1/chat/completions", "--model=model", "--trust-remote-code",
    "--dataset-name=custom_image", "--enable-multimodal-chat", "--disable-shuffle", "--no-oversample",
    "--temperature=0", "--percentile-metrics=ttft,e2el", "--metric-percentiles=99",
    "--save-result", "--save-detailed", "--disable-tqdm",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One load. Times in seconds. first: number of its first request.

    exit_share: of requests that ended with the small model's answer. scored_share: that went through the
    consistency pass. kept_tokens: visual tokens per request that reached the large model, None where none did
    or the server is plain. guide_seconds: mean, None where no guide ran. cached_share: of prompt tokens that
    the prefix cache knew. encoded_share: of all tiles, those that the large model's encoder was given; None
    where the server is plain. busy_share: of requests left alone because the guide was full. right: what each
    answer is worth, from 0 to 1; None where nobody knows.
    """

    step: Step
    first: int
    requests: int
    throughput: float
    ttft_median: float
    ttft_p99: float
    e2e_median: float
    e2e_p99: float
    exit_share: float
    scored_share: float
    kept_tokens: float | None
    guide_seconds: float | None
    cached_share: float
    busy_share: float = 0.0
    encoded_share: float | None = None
    right: tuple[float, ...] | None = None


class Bench:
    """``vllm bench serve``, ready to run, while the ``with`` block does."""

    def __init__(self, workspace: Workspace, preset: Preset) -> None:
        self._workspace, self._preset = workspace, preset

    def __enter__(self) -> "Bench":
        self._log = self._workspace.work / "bench.log"
        environment = {**self._workspace.environment, "VLLM_PLUGINS": "", "OMP_NUM_THREADS": "1"}
        with self._log.open("w") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.serve.bench_child"], cwd=ROOT, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *exception: Any) -> None:
        end_group(self._child)

    def ready(self) -> None:
        """Wait until it has loaded vLLM, so that it takes no core from what is measured next."""
        self._answer("ready", _START_SECONDS)

    def load(self, server: Server, step: Step, requests: Sequence[Request], threshold: float) -> Run:
        """One step. requests: those of its numbers, that no server has seen. threshold: for exits.

        Raises:
            BenchmarkError: where a request failed, or was not answered as the step asks.
        """
        data, result = self._workspace.work / "bench-data.jsonl", self._workspace.work / "bench-result.json"
        data.write_text("".join(json.dumps({"content": one.content}) + "\n" for one in requests))
        result.unlink(missing_ok=True)
        arguments = [
            *_FLAGS, f"--tokenizer={server.model}", f"--base-url={server.address}",
            f"--dataset-path={data}", f"--num-prompts={len(requests)}",
            f"--max-concurrency={step.clients}", f"--custom-output-len={self._preset.asked.max_tokens}",
            f"--result-dir={result.parent}", f"--result-filename={result.name}",
        ]  # fmt: skip
        more: dict[str, Any] = dict(ENDLESS) if self._preset.asked.fixed_length else {}
        if xargs := step.setting.xargs(threshold):
            more["vllm_xargs"] = xargs
        if more:
            arguments.append(f"--extra-body={json.dumps(more)}")
        before = server.metrics()
        print(json.dumps([str(self._log), arguments]), file=self._child.stdin, flush=True)
        self._answer("0", _LOAD_SECONDS)
        counted = before, server.metrics()
        return read(step, json.loads(result.read_text()), *counted, requests, self._preset)

    def _answer(self, expected: str, seconds: float) -> None:
        """Wait for the child's next line."""
        readable, _, _ = select.select([self._child.stdout], [], [], seconds)
        found = self._child.stdout.readline().strip() if readable else f"silent for {seconds:.0f} s"
        if found != expected:
            raise BenchmarkError(
                f"vllm bench serve: expected {expected!r}, received {found or 'its end'!r}\n"
                + self._workspace.tail(self._log.name)
            )


def read(
    step: Step,
    result: dict[str, Any],
    before: Scrape,
    after: Scrape,
    requests: Sequence[Request],
    preset: Preset,
) -> Run:
    """Check a result file of ``vllm bench serve`` and the server's counters, and pick what counts.

    Raises:
        BenchmarkError: where a request failed, was cut short, or went another way than the step asks.
    """
    if result["completed"] != len(requests) or result["failed"]:
        raise BenchmarkError(f"{step}: {result['completed']} of {len(requests)} requests were answered")

    def grown(name: str, **labels: str) -> int:
        return round(after.since(before, name, **labels))

    exits = grown("sgl:requests_total", decision="exit")
    reached = len(requests) - exits
    kept_tokens = grown("sgl:visual_tokens_total", kind="kept")
    found = {
        "reports": grown("sgl:requests_total"),
        "bypassed": grown("sgl:requests_total", decision="bypass"),
    }
    # More clients than the guide has room for are no failure: what it does not look at is as in plain vLLM.
    busy = grown("sgl:requests_total", decision="bypass", reason="guide_busy")
    sgl = step.setting.side == "guided"
    pruned = step.setting.retention < 1 or step.setting.guided
    expected = {"reports": len(requests) * sgl, "bypassed": busy if pruned else len(requests) * sgl}
    if preset.asked.fixed_length:
        # An exit's tokens are the small model's, which was given the same limit.
        found["answer tokens"] = result["total_output_tokens"]
        expected["answer tokens"] = len(requests) * preset.asked.max_tokens
    if found != expected:
        raise BenchmarkError(f"{step}: expected {expected}, counted {found}")
    least, most = _kept(step, requests, reached, busy) if sgl else (0, 0)
    if not least <= kept_tokens <= most:
        raise BenchmarkError(f"{step}: expected {least} to {most} kept tokens, counted {kept_tokens}")
    tiles = grown("sgl:tiles_total", kind="seen")
    guided, queried = grown("sgl:guide_seconds_count"), grown("vllm:prefix_cache_queries_total")
    return Run(
        step=step,
        first=preset.numbers(step)[0],
        requests=len(requests),
        throughput=result["request_throughput"],
        **{
            f"{short}_{kind}": result[f"{kind}_{name}_ms"] / 1000
            for short, name in (("ttft", "ttft"), ("e2e", "e2el"))
            for kind in ("median", "p99")
        },
        exit_share=exits / len(requests),
        scored_share=grown("sgl:score_count") / len(requests),
        kept_tokens=kept_tokens / reached if sgl and reached else None,
        guide_seconds=after.since(before, "sgl:guide_seconds_sum") / guided if guided else None,
        cached_share=grown("vllm:prefix_cache_hits_total") / queried if queried else 0.0,
        busy_share=busy / len(requests),
        encoded_share=grown("sgl:tiles_total", kind="encoded") / tiles if tiles else None,
        right=_right(result["generated_texts"], requests) if preset.asked.known else None,
    )


def _kept(step: Step, requests: Sequence[Request], reached: int, busy: int) -> tuple[int, int]:
    """Visual tokens that the large model is given where so many of the requests reach it, so many of them
    unpruned: the least and the most, which are one where all are alike. A policy may keep fewer than its
    share (``Setting.exact``), but never nothing."""
    pruned = sorted(kept_count(step.setting.retention, one.visual_tokens) for one in requests)
    whole = sorted(one.visual_tokens for one in requests)
    guided = reached - busy
    return (
        (sum(pruned[:guided]) if step.setting.exact else guided) + sum(whole[:busy]),
        sum(pruned[len(pruned) - guided :]) + sum(whole[len(whole) - busy :]),
    )


def _right(texts: Sequence[str], requests: Sequence[Request]) -> tuple[float, ...]:
    return tuple(one.worth(text) for one, text in zip(requests, texts, strict=True))
