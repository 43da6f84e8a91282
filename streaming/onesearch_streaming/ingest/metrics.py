"""What Prometheus is told of a consumer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

_NAMESPACE = "onesearch_ingest"


class Metrics:
    """Counters and gauges of one consumer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.read = self._counter("read", "Messages read.", "topic")
        self.written = self._counter("written", "Events written.", "sink")
        self.refused = self._counter("refused", "Messages refused to the dead-letter topic.", "topic")
        self.repeated = self._counter("repeated", "Events that had come before.", "topic")
        self.missed = self._counter("missed", "Messages that Kafka removed before they were read.", "topic")
        self.lag = self._gauge("lag", "Messages not yet read.", "topic", "partition")
        self.partitions = self._gauge("partitions", "Partitions that this process reads.")
        self.seen = self._gauge("seen", "When the loop last went round, seconds since 1970.")
        self.waiting = self._gauge("waiting", "1 while nothing can be written, or Kafka does not answer.")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, namespace=_NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(name, about, labels, namespace=_NAMESPACE, registry=self.registry)

    def serve(self, port: int, host: str = "127.0.0.1") -> None:
        """Answer Prometheus on a port, from a thread of its own."""
        start_http_server(port, host, self.registry)
