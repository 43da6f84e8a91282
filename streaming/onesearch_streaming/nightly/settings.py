"""The table ``[nightly]`` of the configuration."""

from __future__ import annotations

from datetime import date

from onesearch.config import Section
from pydantic import Field


class DataLimits(Section):
    """When a day of the log, or the catalogue, is not to be learnt from. A day is compared with the days
    before
    it: a figure may be off by so many robust spreads (1.4826 · the median distance from the median), and a
    spread counts as no smaller than a floor, so that very steady days do not make a night touchy."""

    baseline_days: int = Field(default=14, ge=1)
    """Days before, at most, that a day is compared with."""
    least_days: int = Field(default=4, ge=1)
    """With fewer days before it, a day is only held to the limits that need no comparison."""
    spreads: float = Field(default=5.0, gt=0)
    """Robust spreads that a figure may be off by."""
    volume_floor: float = Field(default=0.06, ge=0)
    """Least spread of searches a day, as a share of their median: with 5 spreads, 30 % more or less are
    taken."""
    rate_floor: float = Field(default=0.05, ge=0)
    """Least spread of click and order rate, as a share of their median."""
    share_floor: float = Field(default=0.01, ge=0)
    """Least spread of shares between 0 and 1, such as that of clicks in the first three places."""
    drift: float = Field(default=0.25, gt=0)
    """Largest population stability index Σ (p − q)·ln(p/q) of what is searched, where clicks go and at which
    hours. 0.25 is where a change is commonly called large."""
    repeated: float = Field(default=0.01, gt=0, lt=1)
    """Largest share of events that say the same as another one."""
    orphans: float = Field(default=0.05, gt=0, lt=1)
    """Largest share of clicks and orders without the impression they belong to, where impressions are
    logged."""
    misordered: float = Field(default=0.01, gt=0, lt=1)
    """Largest share of clicks and orders that happened before what they follow, or hours after it."""
    ahead: float = Field(default=0.001, gt=0, lt=1)
    """Largest share of events later than the night itself."""
    robot_clicks: int = Field(default=50, ge=1)
    """Clicks a day from which a shopper may be a robot; more where the busiest of the days before had
    more."""
    robots: float = Field(default=0.02, gt=0, lt=1)
    """Largest share of a day's clicks that may be robots'."""
    prices: float = Field(default=0.01, gt=0, lt=1)
    """Largest share of the catalogue whose price is zero, became unknown, or changed tenfold since the
    champion."""
    catalogue_loss: float = Field(default=0.05, gt=0, lt=1)
    """Largest share of the champion's items that may have left the catalogue in a night."""


class GateLimits(Section):
    """What a challenger must reach beside the champion."""

    searches: int = Field(default=800, ge=1)
    """Held-out searches, at most, that both are asked."""
    least_searches: int = Field(default=50, ge=1)
    """With fewer there is no telling, and the champion stays."""
    position_fade: float = Field(default=0.65, ge=0)
    """How attention falls with the place: (1 + place)^-fade. A click counts the more the less it was seen."""
    quality_margin: float = Field(default=0.02, ge=0)
    """By how much the challenger may order what was shown worse than the champion: the lower end of the
    paired 95 % interval must stay above minus this."""
    relevance_margin: float = Field(default=0.02, ge=0)
    """The same for judged relevance (NDCG@10), or for the similarity of query and items where none is
    judged."""
    reach_margin: float = Field(default=0.1, ge=0, le=1)
    """By how much the share of chosen items that the beams reach may be below the champion's."""
    anchor: bool = True
    """Whether quality and relevance may lie no further than the same two margins below those of the anchor,
    either: the best release so far, which stays until a challenger is better beyond doubt. Without
    it a little may be lost each night, night after night."""
    latency_ratio: float = Field(default=1.5, gt=0)
    """Largest median ratio of a search's time to the champion's, one right after the other."""
    latency_ms: float = Field(default=0.0, ge=0)
    """Largest median time of a search in one process; 0: only the ratio counts."""
    size_ratio: float = Field(default=1.5, gt=0)
    """Largest ratio of the release's bytes to the champion's."""
    changed_codes: float = Field(default=0.01, ge=0, le=1)
    """Largest share of items whose semantic ID is another one than the champion's: a night keeps the
    codebooks."""
    code_drift: float = Field(default=0.25, gt=0)
    """Stability index of the first codes that are clicked, above which the report advises to fit the
    tokenizer again (``onesearch train``). Advice only: no night is refused for it."""


class NightlySettings(Section):
    """What a night learns from, and what its gate asks for."""

    window_days: int = Field(default=28, ge=1)
    """Days of the log that a night learns from: its cost grows with these, not with the history."""
    held_out_days: int = Field(default=1, ge=1)
    """The newest days: the night does not learn from them, champion and challenger are compared on them. The
    next night learns from them, when their late clicks and orders have come in, too."""
    attribution_hours: float = Field(default=24.0, gt=0)
    """How long after an impression a click or an order still belongs to it."""
    skip_days: tuple[date, ...] = ()
    """Days never to learn from."""
    accept_days: tuple[date, ...] = ()
    """Days to learn from whatever the checks say of them."""
    promote: bool = True
    """Whether a challenger that passes becomes the champion at once; else it waits for ``onesearch release
    promote``."""
    checks: DataLimits = DataLimits()
    """Limits of the data."""
    gate: GateLimits = GateLimits()
    """Limits of the challenger."""
