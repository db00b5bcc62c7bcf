"""Prometheus metrics of a server. Imported only where HTTP is served, for the library takes 2 MB."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from csi.server.figures import PREFIX, Family, Sample, Source
from csi.services.identity import vendor_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# From a Probe to the create of a large image; twice to three times as much each.
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class Metrics:
    """The registry of one server: its RPCs, its process, and what sources tell."""

    def __init__(self, role: str, sources: Iterable[Source] = ()) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # when a counter was made says nothing here
        self._registry = CollectorRegistry()
        self._rpcs = Counter(f"{PREFIX}rpcs", "RPCs answered.", ("method", "code"), registry=self._registry)
        self._durations = Histogram(
            f"{PREFIX}rpc_duration_seconds",
            "How long RPCs took to be answered.",
            ("method",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        ProcessCollector(registry=self._registry)
        info = Family(
            f"{PREFIX}build_info", "1; what is running.", (Sample(1, {"version": vendor_version(), "role": role}),)
        )
        self._sources = _Sources([lambda: (info,), *sources])
        self._registry.register(self._sources)
        self._guard = threading.Lock()

    def observe(self, method: str, code: str, seconds: float) -> None:
        """Count an RPC that was answered; method and code are of the interface's own few."""
        self._rpcs.labels(method, code).inc()
        self._durations.labels(method).observe(seconds)

    def add(self, source: Source) -> None:
        """Show what another part of the server has to tell, from the next scrape on."""
        self._sources.all.append(source)

    def page(self, accept: str) -> tuple[str, bytes]:
        """Give content type and body in the best of the forms that a scraper accepts; one scrape at a time."""
        encode, content_type = exposition.choose_encoder(accept)
        with self._guard:
            return content_type, encode(self._registry)


class _Sources(Collector):
    """All sources as the library asks for them."""

    def __init__(self, sources: list[Source]) -> None:
        self.all = sources

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Name nothing before the first scrape: a source may not be ready to be asked."""
        return ()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Ask every source."""
        for source in self.all:
            yield from map(_exposed, source())


def _exposed(family: Family) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if family.counter else GaugeMetricFamily
    names = tuple(family.samples[0].labels) if family.samples else ()
    exposed = kind(family.name, family.text, labels=names)
    for sample in family.samples:
        exposed.add_metric([sample.labels[name] for name in names], sample.value)
    return exposed
