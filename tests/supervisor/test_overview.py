"""The metrics of several processes as one text."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from rtserver.obs.metrics import Metrics
from rtserver.supervisor.overview import merged


def process(blocks: int, seconds: float) -> Metrics:
    metrics = Metrics()
    metrics.blocks.labels("local", "next").inc(blocks)
    metrics.block_latency.labels("local").observe(seconds)
    metrics.connections.set(blocks)
    return metrics


def samples(
    families: Iterable[Metric], process: str | None = None
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples by name and labels: all of a process' own text, or those of one in a text of several."""
    found = {}
    for family in families:
        for sample in family.samples:
            labels = dict(sample.labels)
            if process is None or labels.pop("process") == process:
                found[sample.name, frozenset(labels.items())] = sample.value
    return found


def parsed(text: bytes) -> list[Metric]:
    return list(text_string_to_metric_families(text.decode()))


def test_each_sample_is_there_with_its_process_and_each_family_once() -> None:
    texts = {"engine": process(7, 0.003).render(), "gateway-1": process(9, 0.5).render()}
    families = parsed(merged(texts))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for name, text in texts.items():
        own = samples(parsed(text))
        assert own
        assert samples(families, name) == own
    kinds = {family.name: (family.type, family.documentation) for family in families}
    assert kinds == {family.name: (family.type, family.documentation) for family in parsed(texts["engine"])}


def test_a_sample_that_names_a_process_keeps_it() -> None:
    supervisor = Metrics()
    supervisor.process_up.labels("gateway-1").set(1)
    supervisor.process_restarts.labels("gateway-1").inc(3)
    families = parsed(merged({"supervisor": supervisor.render()}))
    found = samples(families, "gateway-1")
    assert found["rtserver_process_up", frozenset()] == 1
    assert found["rtserver_process_restarts_total", frozenset()] == 3
