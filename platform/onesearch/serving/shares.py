"""Where the time of a search goes: what each Triton model takes of it, and the gateway."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from onesearch.serving.repository import STEPS, model_name

Share = dict[str, float]


class Watch:
    """Reads Triton's own statistics, which add up over all requests, before and after single ones."""

    def __init__(self, triton: str, release: str, states_took_s: Callable[[], float]) -> None:
        """Nothing is measured yet.

        Args:
            triton: ``host:port`` of its gRPC service.
            release: whose models.
            states_took_s: seconds that the gateway has spent on looking shoppers up, in all.
        """
        self._channel = grpc.insecure_channel(triton)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._names = {model_name(release, model): model for model in STEPS}
        self._states_took_s = states_took_s
        self._rows: list[dict[str, float]] = []

    def measure(self, ask: Callable[[], object]) -> None:
        """Do one search, which must be the only one."""
        before = self._totals()
        started = time.perf_counter()
        ask()
        took = time.perf_counter() - started
        row = {name: value - before[name] for name, value in self._totals().items()}
        self._rows.append(row | {"gateway compute": took - sum(row.values())})

    def shares_ms(self) -> dict[str, Share]:
        """Medians in ms by name: the models in their order, before them the gateway (with it, all that lies
        between) and its look-up of the shopper (``states``). ``queue`` is waiting for a model.
        """
        shares: dict[str, Share] = {}
        for name in ("gateway", "states", *STEPS):
            for part in ("compute", "queue"):
                values = [row.get(f"{name} {part}", 0.0) for row in self._rows]
                shares.setdefault(name, {})[part] = round(1000 * float(np.median(values)), 3)
        return shares

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _totals(self) -> dict[str, float]:
        """Seconds so far by name and part."""
        totals = {"states compute": self._states_took_s()}
        for found in self._stub.ModelStatistics(service_pb2.ModelStatisticsRequest(), timeout=5).model_stats:
            model, about = self._names.get(found.name), found.inference_stats
            if model is not None:
                work = (about.compute_input, about.compute_infer, about.compute_output)
                totals[f"{model} compute"] = sum(part.ns for part in work) / 1e9
                totals[f"{model} queue"] = about.queue.ns / 1e9
        return totals
