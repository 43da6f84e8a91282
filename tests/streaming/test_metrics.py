from __future__ import annotations

import socket
from urllib.request import urlopen

from onesearch_streaming.ingest.metrics import Metrics


def test_prometheus_is_answered_on_this_machine_only() -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    metrics = Metrics()
    metrics.lag.labels("topic", "0").set(7)
    metrics.written.labels("log").inc(3)
    metrics.seen.set_to_current_time()
    metrics.serve(port)
    told = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    assert 'onesearch_ingest_lag{partition="0",topic="topic"} 7.0' in told
    assert 'onesearch_ingest_written_total{sink="log"} 3.0' in told and "onesearch_ingest_seen" in told
    with socket.socket() as asked:
        asked.settimeout(2)
        own = socket.gethostbyname(socket.gethostname())
        assert own.startswith("127.") or asked.connect_ex((own, port)) != 0
