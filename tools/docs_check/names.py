"""Names of ours: every one that the documentation uses exists, and every one that exists is documented."""

import re
from collections.abc import Iterator
from functools import cache

from prometheus_client import CollectorRegistry

from tools.docs_check.programs import own_flags
from tools.docs_check.shell import PROMPT

_KEY = re.compile(r"(?<!\w)sgl_[a-z_]+\b(?!\*)")
_METRIC = re.compile(r"(?<![\w-])sgl:[a-z_]+\b(?!\*)")


def unknown(text: str) -> Iterator[str]:
    """Request keys, settings of `vllm_sgl.LLM` and metrics that do not exist. Output below a prompt may have
    names of others."""
    if prompted := [line for line in text.splitlines() if line.startswith(PROMPT)]:
        text = "\n".join(prompted)
    for pattern, known, what in ((_KEY, _keys(), "key or setting"), (_METRIC, _metrics(), "metric")):
        for name in pattern.findall(text):
            if name not in known:
                yield f"no such {what} as {name}"


def undocumented(texts: str) -> Iterator[str]:
    """Flags, request keys and metrics that no code of the documentation names."""
    from vllm_sgl.request.options import RequestOptions

    there = set(re.findall(r"--[\w-]+|\bsgl[_:]\w+", texts))
    names = {*own_flags(), *(f"sgl_{name}" for name in RequestOptions.model_fields)}
    for name in sorted(names - there):
        yield f"{name}: exists, and no page under docs/ names it"


@cache
def _keys() -> frozenset[str]:
    from vllm_sgl.config import SGLConfig
    from vllm_sgl.request.options import RequestOptions

    return frozenset(f"sgl_{name}" for name in {*RequestOptions.model_fields, *SGLConfig.model_fields})


@cache
def _metrics() -> frozenset[str]:
    from vllm_sgl.telemetry.metrics import Metrics

    registry = CollectorRegistry()
    Metrics(registry)
    families = list(registry.collect())
    samples = {"_bucket", "_count", "_sum", "_total", ""}
    return frozenset(family.name + suffix for family in families for suffix in samples)
