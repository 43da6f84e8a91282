"""Where the time of a search goes: what each step takes of it, and the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from onesearch.contracts.user_encoder import ShopperState
from onesearch.serving.engine import search_inputs
from onesearch.serving.inference import Inference
from onesearch.serving.repository import ENSEMBLE, STEPS, model_name
from onesearch.serving.requests import SearchRequest

Share = dict[str, float]
_PATIENCE_S = 5.0


class Watch:
    """Reads Triton's own statistics, which add up over all requests, before and after single ones.

    Where one process runs all steps, Triton knows only their sum: that is split as the same request, asked
    once more of the models alone, says itself.
    """

    def __init__(self, triton: str, release: str, states_took_s: Callable[[], float]) -> None:
        """Nothing is measured yet.

        Args:
            triton: ``host:port`` of its HTTP service.
            release: whose models.
            states_took_s: seconds that the gateway has spent on looking shoppers up, in all.
        """
        self._triton, self._loop = Inference(triton), asyncio.Runner()
        self._names = {model_name(release, model): model for model in (*STEPS, ENSEMBLE)}
        self._search = model_name(release, ENSEMBLE)
        self.together = "SPENT" in self._loop.run(self._triton.outputs(self._search, _PATIENCE_S))
        self._states_took_s = states_took_s
        self._rows: list[dict[str, float]] = []

    def measure(
        self, ask: Callable[[SearchRequest], object], request: SearchRequest, state: ShopperState
    ) -> None:
        """Do one search, which must be the only one. It names its beams."""
        before = self._totals()
        started = time.perf_counter()
        ask(request)
        took = time.perf_counter() - started
        row = {name: value - before[name] for name, value in self._totals().items()}
        whole = row.pop(f"{ENSEMBLE} compute")
        queue = row.pop(f"{ENSEMBLE} queue")
        if self.together:
            row |= self._split(whole, request, state)
            row["triton queue"] = queue
        self._rows.append(row | {"gateway compute": took - sum(row.values())})

    def shares_ms(self) -> dict[str, Share]:
        """Medians in ms by name: the steps in their order, before them the gateway (with it, all that lies
        between) and its look-up of the shopper (``states``). ``queue`` is waiting for a model. Where one
        process runs all steps, ``triton`` is its waiting, and what it takes beside them.
        """
        shares: dict[str, Share] = {}
        names = ("gateway", "states", *(("triton",) if self.together else ()), *STEPS)
        for name in names:
            for part in ("compute", "queue"):
                values = [row.get(f"{name} {part}", 0.0) for row in self._rows]
                shares.setdefault(name, {})[part] = round(1000 * float(np.median(values)), 3)
        return shares

    def close(self) -> None:
        """Close the connection."""
        self._loop.run(self._triton.close())
        self._loop.close()

    def _split(self, whole: float, request: SearchRequest, state: ShopperState) -> dict[str, float]:
        """Seconds of each step out of those of all."""
        inputs = search_inputs(request, state, 1, 0)
        answer = self._loop.run(self._triton.infer(self._search, inputs, ["SPENT"], _PATIENCE_S))
        spent = answer["SPENT"][0] / 1000
        share = min(1.0, whole / max(float(spent.sum()), 1e-9))
        steps = {f"{step} compute": float(one) * share for step, one in zip(STEPS, spent, strict=True)}
        return steps | {"triton compute": whole - sum(steps.values())}

    def _totals(self) -> dict[str, float]:
        """Seconds so far by name and part."""
        totals = {"states compute": self._states_took_s()}
        for found in self._loop.run(self._triton.get("/v2/models/stats", _PATIENCE_S))["model_stats"]:
            model, about = self._names.get(found["name"]), found["inference_stats"]
            if model is not None and not (self.together and model != ENSEMBLE):
                work = (about["compute_input"], about["compute_infer"], about["compute_output"])
                totals[f"{model} compute"] = sum(part["ns"] for part in work) / 1e9
                totals[f"{model} queue"] = about["queue"]["ns"] / 1e9
        return totals
