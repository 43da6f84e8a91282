"""The data checks and the gate: golden numbers, and what must hold for all figures."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.data.schemas import schema
from onesearch.evaluation.metrics import Estimate
from onesearch_streaming.nightly.data_checks import (
    check_ahead,
    check_catalogue,
    check_day,
    judge_days,
    robust_range,
    stability,
)
from onesearch_streaming.nightly.days import ahead_of, catalogue_figures, day_figures
from onesearch_streaming.nightly.gate import Anchored, Measured, check_challenger, decide, is_better
from onesearch_streaming.nightly.settings import DataLimits, GateLimits, NightlySettings
from onesearch_streaming.nightly.verdict import advice, refusals, within

DAY = {
    "day": date(2024, 3, 9), "events": 6_000, "searches": 1_000, "shoppers": 400, "impressions": 5_000,
    "clicks": 500, "orders": 100, "repeated": 0.0, "orphans": 0.0, "misordered": 0.0, "no_query": 0.0,
    "no_place": 0.0, "top3": 0.6, "placed_clicks": 500, "top_clicks": [9, 8, 7],
    "hours": [{"key": str(hour), "count": 60} for hour in range(8, 24)],
    "queries": [{"key": f"q{at}", "count": 20} for at in range(50)],
    "letters": [{"key": letter, "count": 300} for letter in "abcdefgh"],
    "categories": [{"key": f"c{at}", "count": 50} for at in range(10)],
}  # fmt: skip
BASELINE = [DAY] * 7
LIMITS = DataLimits()
SAME = Measured(
    searches=500, quality=Estimate(0.0, -0.005, 0.005), quality_of=(0.7, 0.7), reach=(0.98, 0.98), judged=100,
    relevance=Estimate(0.0, -0.005, 0.005), relevance_of=(0.5, 0.5), relevance_by="judgements",
    p50_ms=(5.0, 5.0), p99_ms=(9.0, 9.0), latency_ratio=1.0, bytes=(1_000_000, 1_000_000), changed_codes=0.0,
    code_drift=0.01,
)  # fmt: skip


def refused(day: dict[str, object], baseline: list[dict[str, object]] | None = None) -> set[str]:
    checks = check_day(day, BASELINE if baseline is None else baseline, LIMITS)
    return {check.name for check in refusals(checks)}


def test_a_day_like_those_before_passes_all_checks() -> None:
    checks = check_day(DAY, BASELINE, LIMITS)
    assert not refusals(checks) and len(checks) == 15
    assert all(check.reason and check.value is not None for check in checks)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"searches": 600, "impressions": 3_000, "clicks": 300, "orders": 60}, "volume"),
        ({"clicks": 900, "orders": 180}, "click rate"),
        ({"orders": 10}, "order rate"),
        ({"top3": 0.3}, "attention"),
        ({"top_clicks": [200, 3]}, "robots"),
        ({"repeated": 0.05}, "repeated"),
        ({"orphans": 0.2}, "orphans"),
        ({"misordered": 0.05}, "clock"),
        ({"no_query": 0.3}, "queries missing"),
        ({"no_place": 0.3}, "places missing"),
        ({"queries": [{"key": "one", "count": 1000}]}, "query drift"),
        ({"letters": [{"key": "?", "count": 2400}]}, "text drift"),
        ({"categories": [{"key": "c0", "count": 500}]}, "label drift"),
        ({"hours": [{"key": "3", "count": 960}]}, "hours"),
    ],
)
def test_each_damage_is_refused_for_its_reason(change: dict[str, object], name: str) -> None:
    assert name in refused({**DAY, **change})


def test_a_first_day_is_held_to_what_needs_no_comparison() -> None:
    assert {check.name for check in check_day(DAY, [], LIMITS)} == {"repeated", "orphans", "clock", "robots"}
    assert refused({**DAY, "searches": 1}, []) == set()
    assert refused({**DAY, "repeated": 0.5}, []) == {"repeated"}


def test_bad_days_are_no_baseline() -> None:
    rows = [{**DAY, "day": date(2024, 3, 1) + timedelta(days=at)} for at in range(12)]
    for at in range(6, 10):
        rows[at] |= {"searches": 100, "impressions": 500, "clicks": 50, "orders": 10}
    judged = judge_days(pl.DataFrame(rows), NightlySettings())
    assert [one.good for one in judged] == [True] * 6 + [False] * 4 + [True] * 2
    assert judged[-1].compared_with == 7
    trusted = NightlySettings(accept_days=(date(2024, 3, 7),), skip_days=(date(2024, 3, 1),))
    assert judge_days(pl.DataFrame(rows), trusted)[7].compared_with == 6


@given(
    st.lists(st.floats(1, 1e6), min_size=1, max_size=20),
    st.floats(0, 1e3),
    st.floats(0.1, 10),
    st.floats(0.1, 100),
)
def test_the_range_holds_the_median_and_scales(
    before: list[float], floor: float, spreads: float, scale: float
) -> None:
    centre, low, high = robust_range(before, floor, spreads)
    assert low <= centre <= high and math.isclose(centre, float(np.median(before)))
    assert high - low >= 2 * spreads * floor - 1e-9 * centre
    wide = robust_range(before, floor, 2 * spreads)
    assert wide[1] <= low and wide[2] >= high
    scaled = robust_range([value * scale for value in before], floor * scale, spreads)
    assert math.isclose(scaled[1], low * scale, rel_tol=1e-6, abs_tol=1e-3 * scale)


def test_one_wild_day_does_not_move_the_range() -> None:
    assert robust_range([100, 101, 99, 100, 5_000], 1.0, 5.0) == (100.0, 100 - 5 * 1.4826, 100 + 5 * 1.4826)


@given(
    st.dictionaries(st.text(max_size=3), st.integers(1, 1_000), min_size=1, max_size=60), st.integers(2, 9)
)
def test_the_same_spread_has_no_drift(counts: dict[str, int], times: int) -> None:
    more = {key: float(count * times) for key, count in counts.items()}
    assert stability({key: float(count) for key, count in counts.items()}, more) < 0.05
    assert stability({}, more) == 0.0


def test_drift_of_a_shift_by_hand() -> None:
    before, now = {"a": 5_000.0, "b": 5_000.0}, {"a": 8_000.0, "b": 2_000.0}
    # (.8 - .5) ln(.8 / .5) + (.2 - .5) ln(.2 / .5), a kind for what is neither aside
    assert stability(now, before) == pytest.approx(0.3 * math.log(1.6) - 0.3 * math.log(0.4), abs=2e-3)


def test_the_catalogue() -> None:
    champion = pl.DataFrame({"item_id": [f"i{at}" for at in range(100)], "price": [10.0] * 100})
    whole = champion.with_columns(title=pl.lit("lamp"), category=pl.lit(["home"]))
    assert not refusals(check_catalogue(catalogue_figures(whole, champion), LIMITS))
    broken = whole.with_columns(
        price=pl.when(pl.int_range(100) < 2).then(0.0).when(pl.int_range(100) < 5).then(1_000.0)
        .when(pl.int_range(100) < 9).then(None).otherwise("price")
    )  # fmt: skip
    figures = catalogue_figures(broken, champion)
    assert [figures[name] for name in ("zero", "tenfold", "lost")] == pytest.approx([0.02, 0.03, 0.04])
    [check] = refusals(check_catalogue(figures, LIMITS))
    assert check.name == "prices" and "4.00 % are missing" in check.reason
    [check] = refusals(check_catalogue(catalogue_figures(whole.head(90), champion), LIMITS))
    assert check.name == "catalogue" and check.value == pytest.approx(0.1)


def test_figures_of_a_day_by_hand() -> None:
    noon = datetime(2024, 3, 1, 12, tzinfo=UTC)

    def row(number: int, action: str, item: str, after: float = 0.0, **other: object) -> dict[str, object]:
        return {
            "event_id": f"e{number}", "ts": noon + timedelta(seconds=after), "user_id": "u",
            "request_id": "r", "scene": "search", "query": "Red  Lamp", "item_id": item,
            "action": action, "position": 0,
        } | other  # fmt: skip

    rows = [
        row(1, "impression", "a"),
        row(2, "impression", "b", position=1),
        row(3, "click", "a", 5),
        row(4, "click", "a", 5),  # says what the third says
        row(5, "click", "b", -60, position=1),  # before it was shown
        row(6, "order", "c", 90, position=None),  # never shown
        row(7, "click", "a", request_id="r2", ts=noon + timedelta(days=3)),  # after the night
    ]
    events = pl.DataFrame(rows, schema=schema("interactions")).lazy()
    items = pl.DataFrame({"item_id": ["a", "b"], "category": [["home", "lamps"], ["home"]]})
    end = datetime(2024, 3, 2, tzinfo=UTC)
    [day] = day_figures(events, items, end).iter_rows(named=True)
    assert (day["events"], day["searches"], day["impressions"], day["clicks"], day["orders"]) == (
        6,
        1,
        2,
        3,
        1,
    )
    assert (day["repeated"], day["orphans"], day["misordered"]) == pytest.approx((1 / 6, 1 / 4, 1 / 4))
    assert day["top_clicks"] == [3] and day["top3"] == 1.0
    assert day["queries"] == [{"key": "red lamp", "count": 1}]
    assert {one["key"]: one["count"] for one in day["categories"]} == {"home / lamps": 2, "home": 1}
    assert ahead_of(events, end) == pytest.approx(1 / 7)
    assert refusals([check_ahead(1 / 7, LIMITS)])
    assert len(day_figures(events.filter(pl.lit(False)), items, end)) == 0


def test_an_equal_challenger_passes() -> None:
    verdict = decide(check_challenger(SAME, GateLimits()))
    assert verdict.promote and not verdict.reasons and not verdict.advice


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"searches": 10}, "searches"),
        ({"quality": Estimate(-0.02, -0.03, -0.01)}, "quality"),
        ({"reach": (0.98, 0.7)}, "reach"),
        ({"relevance": Estimate(-0.05, -0.06, -0.04)}, "relevance"),
        ({"p50_ms": (5.0, 9.0), "latency_ratio": 1.8}, "latency"),
        ({"bytes": (1_000_000, 2_000_000)}, "size"),
        ({"changed_codes": 0.5}, "codes changed"),
        ({"quality": Estimate(math.nan, math.nan, math.nan)}, "quality"),
    ],
)
def test_each_fault_of_a_challenger_is_refused_for_its_reason(change: dict[str, object], name: str) -> None:
    checks = check_challenger(replace(SAME, **change), GateLimits())  # type: ignore[arg-type]
    assert [check.name for check in refusals(checks)] == [name]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"quality": Estimate(-0.021, -0.03, -0.01)}, "lasting quality"),
        ({"relevance": Estimate(-0.021, -0.03, -0.01)}, "lasting relevance"),
        ({"quality": Estimate(math.nan, math.nan, math.nan)}, "lasting quality"),
    ],
)
def test_what_is_lost_since_the_anchor_is_refused(change: dict[str, object], name: str) -> None:
    anchored = Anchored("best", Estimate(-0.019, -0.03, 0.01), 0.5, Estimate(0.0, -0.01, 0.01), 0.6)
    assert decide(check_challenger(replace(SAME, anchored=anchored), GateLimits())).promote
    checks = check_challenger(replace(SAME, anchored=replace(anchored, **change)), GateLimits())  # type: ignore[arg-type]
    assert [check.name for check in refusals(checks)] == [name] and "'best'" in refusals(checks)[0].reason


@pytest.mark.parametrize("seed", range(5))
def test_small_losses_do_not_add_up(seed: int) -> None:
    """Nights that better the shop, then twenty that each lose half a percent, which the champion's margin
    lets through; what is measured scatters. Together they lose the margin, and
    what chance lets through; without the anchor they lose it all."""
    rng, error, limits = np.random.default_rng(seed), 0.004, GateLimits()

    def estimate(difference: float) -> Estimate:
        seen = difference + error * float(rng.normal())
        return Estimate(seen, seen - 1.96 * error, seen + 1.96 * error)

    champion, anchor, alone, best = 0.5, 0.5, 0.5, 0.5
    for change in [0.006] * 10 + [-0.005] * 20:
        challenger = champion + change
        level = estimate(0.0)
        anchored = Anchored("best", estimate(challenger - anchor), anchor, level, 0.6)
        measured = replace(SAME, quality=estimate(change), relevance=level, anchored=anchored)
        if decide(check_challenger(measured, limits)).promote:
            champion, anchor = challenger, challenger if is_better(measured) else anchor
        if decide(check_challenger(replace(measured, anchored=None), limits)).promote:
            alone += change
        best = max(best, champion)
    assert anchor > 0.5 and best - champion <= limits.quality_margin + 4 * error
    assert best - alone > 4 * limits.quality_margin


def test_drifted_codes_are_advice() -> None:
    verdict = decide(check_challenger(replace(SAME, code_drift=0.6), GateLimits()))
    assert verdict.promote and verdict.advice[0].startswith("code drift")


@settings(max_examples=50)
@given(st.floats(-0.5, 0.5), st.floats(0, 0.2), st.floats(0, 0.2))
def test_a_better_challenger_is_never_refused_where_a_worse_one_passes(
    change: float, spread: float, better: float
) -> None:
    def passes(mean: float) -> bool:
        made = replace(SAME, quality=Estimate(mean, mean - spread, mean + spread))
        return decide(check_challenger(made, GateLimits())).promote

    assert passes(change) <= passes(change + better)
    assert passes(change) == (change - spread >= -GateLimits().quality_margin)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(-10, 10), st.floats(0, 10))
def test_what_is_not_finite_never_passes(value: float, low: float, width: float) -> None:
    check = within("x", "data", value, "why", low, low + width)
    assert check.passed == (math.isfinite(value) and low <= value <= low + width)
    assert not within("x", "data", None, "why").passed
    hint = within("x", "data", None, "why", blocking=False)
    assert advice([hint]) == [hint] and not refusals([hint])
