"""Odd logs through all stages: the reward of PARS and preference learning take whatever a shop has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.config import parse_config
from onesearch.data.store import Store
from onesearch.data.writing import StoreWriter
from onesearch.progress import SilentProgress
from onesearch.serving.pipeline import Pipeline, SearchRequest
from onesearch.training.run import train

QUICK = "baseline = false\ntowers = { epochs = 1, hidden = 8, rank = 4, tower = 4 }\ntuning_lists = 60\n"


def without(action: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda log: log.filter(pl.col("action") != action)


def robot(log: pl.DataFrame) -> pl.DataFrame:
    """One who clicks the same item ten thousand times."""
    first = log.filter(pl.col("action") == "click").head(1)
    clicks = pl.concat([first] * 10_000).with_columns(
        event_id=pl.format("robot-{}", pl.int_range(pl.len())),
        user_id=pl.lit("robot"),
        ts=pl.col("ts") + pl.duration(seconds=pl.int_range(pl.len())),
    )
    return pl.concat([log, clicks])


ODD = {
    "no orders": (without("order"), "impressions"),
    "no clicks": (lambda log: log.filter(pl.col("action") == "impression"), "relevance"),
    "no impressions": (without("impression"), "lists"),
    "orders alone": (lambda log: log.filter(pl.col("action") == "order"), "lists"),
    "one shopper": (lambda log: log.with_columns(user_id=pl.lit("u0")), None),
    "a robot": (robot, None),
    "nothing": (lambda log: log.clear(), "relevance"),
}


@pytest.mark.parametrize("which", ODD)
def test_all_stages_take_it(which: str, logged: Store, toy, tmp_path: Path) -> None:
    change, source = ODD[which]
    with StoreWriter(tmp_path / "store", "test") as writer:
        writer.write("items", logged.items())
        # What was shown but not clicked, so that there is something to tell apart.
        log = logged.interactions().collect()
        shown = log.filter(pl.col("action") == "impression")
        other = logged.items()["item_id"].gather(np.arange(len(shown)) * 7 % len(logged.items()))
        shown = shown.with_columns(item_id=other, event_id=pl.format("{}-other", "event_id"))
        changed = change(pl.concat([log, shown]))
        if len(changed):
            writer.write("interactions", changed)
    store = Store.open(tmp_path / "store")
    toml = toy.toml(prefers=True).replace('[reward]\nname = "toylearn"', '[reward]\nname = "pars"')
    settings = toml.index("[reward.toylearn]")
    toml = toml[:settings] + f"[reward.pars]\n{QUICK}\n" + toml[toml.index("[training]") :]
    trained = train(store, tmp_path, "one", parse_config(toml, plugins=toy.plugins), SilentProgress())
    figures = {report.stage: report.figures for report in trained.stages}
    assert source is None or figures["reward"]["source"] == source
    assert all(np.isfinite(value) for value in figures["reward"]["lambdas"].values())
    for phase in ("phase_1", "phase_2"):
        assert figures[phase].get("kept") or "skipped" in figures[phase]
    if which in ("no clicks", "nothing"):
        assert "no clicks and orders" in figures["phase_2"]["skipped"]
    if which == "nothing":
        assert "neither logs" in figures["phase_1"]["skipped"]
    answer = Pipeline.of_release(trained.release).search(SearchRequest("red lamp", k=5))
    assert len(answer.hits) == 5 and all(np.isfinite(hit.score) for hit in answer.hits)
