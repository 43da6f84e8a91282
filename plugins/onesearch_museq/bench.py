"""Times the serving half on a made-up release of full size.

``python -m onesearch_museq.bench make FOLDER`` where learning is installed, then
``python -m onesearch_museq.bench run FOLDER`` in the environment that serves. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from onesearch.codebooks import Codebooks
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.user_encoder import ShopperState
from onesearch.index import CatalogueIndex
from onesearch.shoppers.state import Recent, Ring, item_keys
from onesearch.vocabulary import Vocabulary

from onesearch_museq.behaviour import resolve
from onesearch_museq.config import MuSeqConfig
from onesearch_museq.history import Histories
from onesearch_museq.server import MuSeqServer

ITEMS, DIM, WIDTH = 100_000, 256, 256
LEVELS = (4096, 1024, 512, 256, 256)
LONG, MANY, SHORT = 1_000, 256, 200
"""Events of each ring of a full state; shoppers of a batch, and events of each, half clicks, half orders."""


def make(folder: Path) -> None:
    """Export an encoder with a Q-Former of random weights, a vocabulary and codebooks."""
    import torch

    from onesearch_museq.learner import MuSeqLearner
    from onesearch_museq.stand_ins import StandIns

    rng = np.random.default_rng(0)
    Vocabulary.train([f"thing {n}" for n in range(2_000)], LEVELS, 2_000).save(folder / "vocabulary")
    books = [rng.normal(size=(size, DIM)) * DIM**-0.5 / (1 + level) for level, size in enumerate(LEVELS)]
    Codebooks.of(books).save(folder / "index")
    learner = MuSeqLearner(MuSeqConfig())
    keys = np.sort(item_keys([f"thing {n}" for n in range(20_000)]))
    learner.stand_ins = StandIns(keys, rng.choice(item_keys(_ids()), (len(keys), 10)))
    module = learner.module(DIM, WIDTH)
    assert module is not None
    with torch.no_grad():
        module.scale.normal_()
    learner.export(folder / "user_encoder")


def run(folder: Path) -> dict[str, object]:
    """Milliseconds: of one request with a full state, of its history alone, and of a batch's."""
    server, index = _open(folder)
    rng = np.random.default_rng(1)
    keys = item_keys(_ids())
    full = _state(rng, keys, LONG, LONG)
    sid = index.sids[:1]
    histories = Histories(Codebooks.load(folder / "index"), index.sids, MuSeqConfig().rsu_codes)
    many = resolve([_state(rng, keys, SHORT // 2, SHORT // 2) for _ in range(MANY)], index)
    sids = rng.choice(index.sids, MANY)
    one = resolve([full], index)
    server.features([full], ["thing 1"], sid)
    return {
        "numpy": np.__version__,
        "features_ms": _times(lambda: server.features([full], ["thing 1"], sid), 300),
        "cold_features_ms": _times(lambda: server.features([ShopperState()], ["thing 1"], sid), 300),
        "explain_ms": _times(lambda: server.explain([full], ["thing 1"], sid), 100),
        "history_ms": _times(lambda: histories.of(one, sid), 300),
        "history_of_256_ms": _times(lambda: histories.of(many, sids), 10),
    }


def _open(folder: Path) -> tuple[MuSeqServer, CatalogueIndex]:
    vocabulary = Vocabulary.load(folder / "vocabulary")
    rng = np.random.default_rng(2)
    sids = np.stack([rng.integers(0, size, ITEMS) for size in LEVELS], axis=1)
    row = {"title": "thing", "category": ["things"], "brand": "", "price": 1.0, "in_stock": True}
    items = pl.DataFrame({"item_id": _ids()}).with_columns(**{name: pl.lit(v) for name, v in row.items()})
    index = CatalogueIndex.build(items, sids, np.zeros((ITEMS, 1)), np.ones(ITEMS), LEVELS)
    context = ServingContext(
        folder, vocabulary, index, Runtime(threads=1), query_sids=lambda texts: sids[: len(texts)]
    )
    return MuSeqServer.open(folder / "user_encoder", context, MuSeqConfig()), index


def _state(rng: np.random.Generator, keys: np.ndarray, clicks: int, orders: int) -> ShopperState:
    rings = [
        Ring(rng.choice(keys, count), np.arange(count, dtype=np.uint32), np.zeros(count, np.uint8))
        for count in (clicks, orders)
    ]
    recent = tuple(Recent(f"thing {n}", int(rings[0].items[-n]), n) for n in range(1, 17))
    return ShopperState("u", rings[0], rings[1], recent, (9_000, clicks, orders))


def _ids() -> list[str]:
    return [f"item-{n}" for n in range(ITEMS)]


def _times(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """On a busy machine the processor's own time says more than the clock's."""
    took, worked = [], []
    for _ in range(repeats):
        start, begun = time.perf_counter(), time.process_time()
        call()
        worked.append((time.process_time() - begun) * 1e3)
        took.append((time.perf_counter() - start) * 1e3)
    figures = {"p50": np.median(took), "p99": np.quantile(took, 0.99), "cpu_p50": np.median(worked)}
    return {name: round(float(value), 3) for name, value in figures.items()}


if __name__ == "__main__":
    what, target = sys.argv[1:]
    if what == "make":
        make(Path(target))
    else:
        print(json.dumps(run(Path(target)), indent=1))
