"""The gate: whether a challenger may take the champion's place. Pure: measurements in, a verdict out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onesearch.evaluation.metrics import Estimate

from onesearch_streaming.nightly.settings import GateLimits
from onesearch_streaming.nightly.verdict import Check, advice, refusals, within


@dataclass(frozen=True)
class Anchored:
    """What was measured of a challenger beside the anchor, on the same searches.

    Attributes:
        name: of the anchor.
        quality, relevance: challenger − anchor. quality_of, relevance_of: the anchor's means.
    """

    name: str
    quality: Estimate
    quality_of: float
    relevance: Estimate
    relevance_of: float


@dataclass(frozen=True)
class Measured:
    """What was measured of champion and challenger on the same searches.

    Attributes:
        searches: held-out searches. quality: challenger − champion, of how well they order what was shown.
        quality_of: the means of champion and challenger.
        reach: shares of the chosen items that the beams reach, of champion and challenger.
        judged: queries whose relevance was measured. relevance: challenger − champion. relevance_of: the
            means.
        relevance_by: ``judgements`` or ``similarity``.
        p50_ms, p99_ms: of a search, of champion and challenger. latency_ratio: median ratio of a search's
            times, challenger to champion, one right after the other. bytes: of the releases.
        changed_codes: share of the items of both whose semantic ID differs.
        code_drift: stability index of the first codes clicked on the held-out days, against the days before.
        anchored: beside the anchor; None where the champion is the anchor, or none is asked for.
    """

    searches: int
    quality: Estimate
    quality_of: tuple[float, float]
    reach: tuple[float, float]
    judged: int
    relevance: Estimate
    relevance_of: tuple[float, float]
    relevance_by: str
    p50_ms: tuple[float, float]
    p99_ms: tuple[float, float]
    latency_ratio: float
    bytes: tuple[int, int]
    changed_codes: float
    code_drift: float
    anchored: Anchored | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a night."""

    promote: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not; empty where the challenger passes."""
        return tuple(f"{check.name}: {check.reason}" for check in refusals(self.checks))

    @property
    def advice(self) -> tuple[str, ...]:
        """What somebody should look at, though nothing is refused for it."""
        return tuple(f"{check.name}: {check.reason}" for check in advice(self.checks))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "promote": self.promote,
            "reasons": list(self.reasons),
            "advice": list(self.advice),
            "checks": [check.as_dict() for check in self.checks],
        }


def decide(checks: Sequence[Check]) -> Verdict:
    """Promote where nothing refuses."""
    return Verdict(not refusals(checks), tuple(checks))


def check_challenger(measured: Measured, limits: GateLimits) -> list[Check]:
    """Hold a challenger to its limits."""
    ours, theirs = measured.quality_of[1], measured.quality_of[0]
    quality, relevance = measured.quality, measured.relevance
    checks = [
        within(
            "searches",
            "challenger",
            float(measured.searches),
            f"champion and challenger were compared on {measured.searches:,} held-out searches",
            low=float(limits.least_searches),
        ),
        within(
            "quality",
            "challenger",
            quality.low,
            f"the challenger orders what was shown {_signed(quality.value)} against the champion "
            f"({ours:.4f} and {theirs:.4f}; 95 % between {_signed(quality.low)} and {_signed(quality.high)})",
            low=-limits.quality_margin,
        ),
        within(
            "reach",
            "challenger",
            measured.reach[1],
            f"its beams reach {100 * measured.reach[1]:.1f} % of what shoppers chose, the champion's "
            f"{100 * measured.reach[0]:.1f} %",
            low=measured.reach[0] - limits.reach_margin,
        ),
        within(
            "relevance",
            "challenger",
            relevance.low,
            f"relevance by {measured.relevance_by} of {measured.judged:,} queries: "
            f"{_signed(relevance.value)} "
            f"against the champion (95 % between {_signed(relevance.low)} and {_signed(relevance.high)})",
            low=-limits.relevance_margin,
        ),
        within(
            "latency",
            "challenger",
            measured.latency_ratio,
            f"a search takes {measured.latency_ratio:.2f} times as long as the champion's, one right "
            "after the "
            f"other (medians {measured.p50_ms[1]:.2f} and {measured.p50_ms[0]:.2f} ms, one process)",
            high=_latency(measured, limits),
        ),
        within(
            "size",
            "challenger",
            measured.bytes[1] / 1e6,
            f"the release has {measured.bytes[1] / 1e6:.1f} MB, the champion "
            f"{measured.bytes[0] / 1e6:.1f} MB",
            high=limits.size_ratio * measured.bytes[0] / 1e6,
        ),
        within(
            "codes changed",
            "challenger",
            measured.changed_codes,
            f"{100 * measured.changed_codes:.2f} % of the items have another semantic ID than in the "
            "champion",
            high=limits.changed_codes,
        ),
        within(
            "code drift",
            "challenger",
            measured.code_drift,
            f"the first codes that are clicked drifted by a stability index of "
            f"{measured.code_drift:.2f}; far "
            "above the limit the tokenizer should be fitted again (onesearch train)",
            high=limits.code_drift,
            blocking=False,
        ),
    ]
    return checks + _check_anchored(measured, limits)


def is_better(measured: Measured) -> bool:
    """Whether a challenger becomes the anchor: better than it beyond doubt, and by relevance no worse.

    The benefit of the doubt would let the anchor slide down with those who are let through by the margin.
    """
    quality, relevance = measured.quality, measured.relevance
    if measured.anchored is not None:
        quality, relevance = measured.anchored.quality, measured.anchored.relevance
    return quality.low > 0 and relevance.value >= 0


def _check_anchored(measured: Measured, limits: GateLimits) -> list[Check]:
    """The margins once more, beside the best release so far: what many nights lose together.

    Held to them is the difference itself and not the lower end of its interval: it is measured anew each
    night, on other searches, and the longer ago the anchor, the less alike are the two and the wider the
    interval.
    """
    anchored = measured.anchored
    if anchored is None:
        return []
    quality, relevance = anchored.quality, anchored.relevance
    return [
        within(
            "lasting quality",
            "challenger",
            quality.value,
            f"the challenger orders what was shown {_signed(quality.value)} against '{anchored.name}', the "
            f"best release so far ({measured.quality_of[1]:.4f} and {anchored.quality_of:.4f}; 95 % between "
            f"{_signed(quality.low)} and {_signed(quality.high)})",
            low=-limits.quality_margin,
        ),
        within(
            "lasting relevance",
            "challenger",
            relevance.value,
            f"relevance: {_signed(relevance.value)} against '{anchored.name}' (95 % between "
            f"{_signed(relevance.low)} and {_signed(relevance.high)})",
            low=-limits.relevance_margin,
        ),
    ]


def _latency(measured: Measured, limits: GateLimits) -> float:
    """The ratio allowed; less where the challenger may not take so many milliseconds."""
    if limits.latency_ms and measured.p50_ms[1] > limits.latency_ms:
        return min(limits.latency_ratio, measured.latency_ratio * limits.latency_ms / measured.p50_ms[1])
    return limits.latency_ratio


def _signed(value: float) -> str:
    return f"{value:+.4f}"
