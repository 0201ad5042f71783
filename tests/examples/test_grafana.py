"""Every query of the Grafana dashboard names metrics, labels and label values that exist."""

import json
import re
from pathlib import Path

import pytest
import vllm.v1.metrics.loggers
from prometheus_client import CollectorRegistry

from vllm_sgl.core import Report
from vllm_sgl.telemetry.metrics import Metrics

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana" / "vllm-sgl.json"
PANELS = json.loads(DASHBOARD.read_text())["panels"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
#: Names that Prometheus and Grafana give: of the server that was scraped, and of a histogram's buckets.
THEIRS = {"instance", "le"}


@pytest.fixture(scope="module")
def samples():
    """Name of a metric -> its labels and their values, as a server exports them."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for decision, reason in (("prune", None), ("exit", None), ("bypass", "guide_busy")):
        report = Report(decision, reason, visual_tokens=9, kept_tokens=3, tiles=2, encoded_tiles=1)
        report.guide_seconds, report.score = 0.1, 0.5
        metrics.observe(report)
    found = {}
    for family in registry.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
            found.setdefault(sample.name, {})
    return found


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_a_query_asks_for_what_is_exported(samples, title, query):
    names = re.findall(r"\b(?:sgl|vllm):[a-z_]+", query)
    assert names
    vllms = Path(vllm.v1.metrics.loggers.__file__).read_text()
    for name in names:
        if name.startswith("vllm:"):
            assert f'"{name.removesuffix("_bucket")}"' in vllms, name
        else:
            assert name in samples
    for name, selector in re.findall(r"(sgl:[a-z_]+)\{([^}]*)\}", query):
        for label, operator, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', selector):
            if label in THEIRS:
                continue
            pattern = value if operator == "=~" else re.escape(value)
            matching = [one for one in samples[name][label] if re.fullmatch(pattern, one)]
            assert matching, (name, label, value)
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        known = THEIRS.union(*(samples.get(name, {}) for name in names))
        assert {label.strip() for label in grouped.split(",")} <= known


def test_every_metric_is_shown(samples):
    shown = " ".join(query for _, query in QUERIES)
    families = {re.sub(r"_(total|bucket|count|sum|created)$", "", name) for name in samples}
    assert not [name for name in families if name not in shown]


def test_panels_do_not_overlap():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
