from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.cli.main import main
from onesearch.errors import DataError, UsageError
from onesearch.releases.comparing import compare, read_log

START = datetime(2026, 1, 1, tzinfo=UTC)


def log(lift: float = 0.0, searches: int = 3_000, seed: int = 1) -> pl.DataFrame:
    """Simulated: shoppers u0 to u499, the even ones with b; some order, some click."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(searches):
        user = int(rng.integers(500))
        release = "b" if user % 2 == 0 else "a"
        at = START + timedelta(minutes=number)
        row = {
            "ts": at,
            "user_id": f"u{user}",
            "request_id": f"r{number}",
            "scene": "search",
            "release": release,
        }
        rows += [{**row, "action": "impression", "item_id": f"i{at}"} for at in range(3)]
        if rng.random() < 0.2 * (1 + lift * (release == "b")):
            rows.append(
                {**row, "ts": at + timedelta(hours=1), "action": "order", "item_id": "i0", "release": None}
            )
        if rng.random() < 0.4:
            rows.append({**row, "ts": at + timedelta(seconds=9), "action": "click", "item_id": "i1"})
    return pl.DataFrame(rows, schema_overrides={"ts": pl.Datetime("us", "UTC"), "release": pl.String})


def test_searches_and_orders_are_counted_once() -> None:
    events = log()
    done = compare(events, "a", "b")
    orders, look = events.filter(pl.col("action") == "order"), done.look
    assert look.champion.searches + look.challenger.searches == 3_000
    assert look.champion.outcomes + look.challenger.outcomes == len(orders)
    assert done.verdict == "open" and done.decided_after is None and done.in_both == 0
    again = compare(events.sample(fraction=1.0, shuffle=True, seed=2), "a", "b")
    assert again == done
    clicks = compare(events, "a", "b", "clicks").look
    assert (
        clicks.champion.outcomes + clicks.challenger.outcomes
        == events.filter(pl.col("action") == "click").height
    )


def test_a_better_and_a_worse_challenger_are_told() -> None:
    better = compare(log(1.0), "a", "b", expected=0.3)
    assert better.verdict == "better" and better.lift[1] > 0 and (better.decided_after or 0) < 3_000
    worse = compare(log(1.0), "b", "a", expected=0.3)
    assert worse.verdict == "worse" and worse.look.p == pytest.approx(better.look.p)


def test_who_saw_both_and_what_was_before_do_not_count() -> None:
    events = log()
    before = events.with_columns(
        pl.col("ts") - timedelta(days=30), release=pl.lit("a"), request_id="old" + pl.col("request_id")
    )
    assert compare(pl.concat([before, events]), "a", "b") == compare(events, "a", "b")
    crossed = events.with_columns(
        release=pl.when((pl.col("user_id") == "u4") & (pl.col("ts") > START + timedelta(days=1)))
        .then(pl.lit("a")).otherwise("release")
    )  # fmt: skip
    assert compare(crossed, "a", "b").in_both == 1


def test_shoppers_without_an_id_are_new_each_time() -> None:
    done = compare(log().with_columns(user_id=pl.lit("")), "a", "b")
    assert done.look.champion.shoppers + done.look.challenger.shoppers == 3_000


def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no searches that release 'c'"):
        compare(log(searches=50), "a", "c")
    with pytest.raises(UsageError, match="too little"):
        compare(log(searches=50), "a", "b")
    with pytest.raises(UsageError, match="metric 'sales'"):
        compare(log(searches=50), "a", "b", "sales")
    with pytest.raises(DataError, match="no column scene"):
        compare(log(searches=50).drop("scene"), "a", "b")
    (tmp_path / "log.parquet").write_bytes(b"PAR1")
    for path in (tmp_path / "log.parquet", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="not a log"):
            read_log(path)


def test_a_delta_table_is_read_as_of_now(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    events = log(searches=300)
    events.write_delta(tmp_path / "log")
    events.write_delta(tmp_path / "log", mode="overwrite")  # the first files stay behind
    assert len(read_log(tmp_path / "log")) == len(events)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").mkdir()
    events = log(1.0)
    events[:5_000].write_parquet(tmp_path / "log" / "1.parquet")
    events[5_000:].write_parquet(tmp_path / "log" / "2.parquet")
    command = ["release", "compare", "--log", str(tmp_path / "log"), "--expected", "0.3"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--champion", "a", "--challenger", "b", "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "better" and told["low"] > 0 and told["p"] < 0.05
    with pytest.raises(SystemExit):
        main([*command, "--champion", "a", "--challenger", "b"])
    assert "b is better" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([*command, "--releases", str(tmp_path)])
    assert ended.value.code == 2 and "names no champion" in capsys.readouterr().err.replace("\n", " ")
