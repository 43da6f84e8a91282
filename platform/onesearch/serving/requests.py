"""What a search is asked and what it answers, and the checks that every way in shares."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from onesearch.contracts.generator import Guide
from onesearch.contracts.tokenizer import Keyword
from onesearch.errors import UsageError
from onesearch.index import Filters
from onesearch.serving.shopper_view import ShopperView
from onesearch.shoppers.events import FUTURE_LIMIT_S

GUIDES: tuple[str, ...] = get_args(Guide)
# Tabs and line ends are blanks that people paste; every other control character is a mistake or an attack.
_BLANKS = str.maketrans("\t\n\r", "   ")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MAX_FILTER_VALUES = 64
EXPLAINED_BEAMS = 10
KEY_BYTES = 8


def places_before(offset: int, shown: bytes) -> int:
    """How many of the best results come before a page: those skipped, and those of the keys ``shown``."""
    return offset + len(shown) // KEY_BYTES


@dataclass(frozen=True)
class SearchRequest:
    """One search.

    Attributes:
        query: what the shopper typed.
        user_id: who asks; unknown ones are fine, empty is anonymous.
        k, offset: which part of the ranking to return.
        filters: what the items must be.
        beams: width of the search; None: the server's default.
        asked_at_us: when the shopper asked, microseconds since 1970, where that is not now.
        certify: begin narrow and widen, up to ``beams``, only until so many of the best SIDs are proven
            exact; 0: take all beams at once; None: the server's default.
        explain: also tell keywords, SIDs, beams, branches, the certificate, and how the shopper was seen.
        guide: which parts of the generator's score are on.
        rerank: whether the reward orders the answer; False keeps the generator's order.
        page_token: of an answer to the same request: the next page is wanted, without ``offset``.
        generation: of the catalogue, to answer under; None: the newest.
        shown: keys of the items (u64) that earlier pages showed and this one leaves out.
    """

    query: str
    user_id: str = ""
    k: int = 10
    offset: int = 0
    filters: Filters = field(default_factory=Filters)
    beams: int | None = None
    explain: bool = False
    guide: Guide = "guided"
    rerank: bool = True
    certify: int | None = None
    page_token: str = ""
    generation: int | None = None
    shown: bytes = b""
    asked_at_us: int | None = None

    @property
    def before(self) -> int:
        """How many of the best results come before those of this page."""
        return places_before(self.offset, self.shown)

    def proving(self, default: int) -> int:
        """How many SIDs to prove exact: where any are, enough for the page that is asked for."""
        wanted = default if self.certify is None else self.certify
        return max(wanted, self.before + self.k) if wanted else 0


@dataclass(frozen=True)
class Encoding:
    """What the tokenizer makes of a text.

    Attributes:
        sid: its own semantic ID; ``meanings`` says one line a code.
        vector: f32[D], its embedding.
    """

    text: str
    keywords: tuple[Keyword, ...]
    sid: tuple[int, ...]
    meanings: tuple[str, ...]
    vector: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class Limits:
    """What a request may ask for at most; see the table ``[serving]`` of the configuration."""

    query_bytes: int = 4_096
    k: int = 1_000
    beams: int = 3_840
    user_id_bytes: int = 256

    def check(self, request: SearchRequest) -> None:
        """Raise UsageError naming the field that is out of bounds."""
        check_query(request.query, self.query_bytes)
        if len(request.user_id.encode("utf-8", "replace")) > self.user_id_bytes:
            raise UsageError(f"user_id: longer than {self.user_id_bytes} bytes")
        if not 1 <= request.k <= self.k:
            raise UsageError(f"k: {request.k} is not between 1 and {self.k}")
        if request.offset < 0 or request.offset + request.k > self.k:
            raise UsageError(f"offset: {request.offset} with k {request.k} leaves the first {self.k} results")
        if request.beams is not None and not 1 <= request.beams <= self.beams:
            raise UsageError(f"beams: {request.beams} is not between 1 and {self.beams}")
        if request.certify is not None and not 0 <= request.certify <= self.beams:
            raise UsageError(f"certify: {request.certify} is not between 0 and {self.beams}")
        if request.guide not in GUIDES:
            raise UsageError(f"guide: {request.guide!r} is none of {', '.join(GUIDES)}")
        latest = (time.time() + FUTURE_LIMIT_S) * 1e6
        if request.asked_at_us is not None and not 0 <= request.asked_at_us <= latest:
            raise UsageError(
                f"asked_at_us: {request.asked_at_us} is not a time from 1970 to tomorrow, in microseconds"
            )
        if request.filters:
            self._check_filters(request.filters)

    @staticmethod
    def _check_filters(filters: Filters) -> None:
        for name, values in (("category", filters.category), ("brands", filters.brands)):
            if len(values) > MAX_FILTER_VALUES or any(len(value) > 512 for value in values):
                raise UsageError(
                    f"filters.{name}: more than {MAX_FILTER_VALUES} values, or one of over 512 characters"
                )
        for name, price in (("min_price", filters.min_price), ("max_price", filters.max_price)):
            if price is not None and not np.isfinite(price):
                raise UsageError(f"filters.{name}: {price} is not a price")
        if (
            filters.min_price is not None
            and filters.max_price is not None
            and filters.min_price > filters.max_price
        ):
            raise UsageError(f"filters: min_price {filters.min_price} is above max_price {filters.max_price}")


def check_query(query: str, limit: int = 4_096) -> None:
    """Raise UsageError where a query is empty, over ``limit`` bytes, or holds control characters."""
    if len(query) > limit or len(query.encode("utf-8", "replace")) > limit:
        raise UsageError(f"query: longer than {limit} bytes")
    cleaned = query.translate(_BLANKS)
    if not cleaned.strip():
        raise UsageError("query: empty")
    if found := _CONTROL.search(cleaned):
        raise UsageError(f"query: control character U+{ord(found[0]):04X} at position {found.start()}")


@dataclass(frozen=True)
class Hit:
    """One item of an answer.

    Attributes:
        rank: the place: 1 is the best of the whole ranking, whatever the offset.
        price: None where the catalogue has none.
        score: the reward's total (without a reward the generator's log-probability).
        log_prob: the generator's log-probability of the item's SID.
        parts: the weighted parts of the score by name; they sum to it.
        propensity: probability that this item was shown at this place; 1 but where places are explored.
    """

    rank: int
    item_id: str
    title: str
    category: tuple[str, ...]
    brand: str
    price: float | None
    in_stock: bool
    sid: tuple[int, ...]
    score: float
    log_prob: float
    parts: dict[str, float]
    propensity: float = 1.0


@dataclass(frozen=True)
class Explanation:
    """How an answer came about.

    Attributes:
        keywords: found in the query.
        query_sid: the query's own semantic ID; ``meanings`` says one line a code.
        beams: the best SIDs found with their log-probabilities, at most ten.
        found: number of SIDs that the beams reached.
        branches: legal branches looked at, level by level.
        exact: so many of the best SIDs are certain: no wider beam could change them.
        dropped: best log-probability among everything that the beams cut (-inf: nothing was).
        missing: at most so many SIDs could be missing from the top ``offset + k``; None: no useful bound.
        shopper: how the user encoder saw who asks; None where it has nothing to say.
        width: beams that the search took.
    """

    keywords: tuple[Keyword, ...]
    query_sid: tuple[int, ...]
    meanings: tuple[str, ...]
    beams: tuple[tuple[tuple[int, ...], float], ...]
    found: int
    branches: tuple[int, ...]
    exact: int
    dropped: float
    missing: int | None
    shopper: ShopperView | None = None
    width: int = 0


@dataclass(frozen=True)
class SearchAnswer:
    """What a search returned.

    Attributes:
        hits: best first.
        release, generation: what answered; a mixed answer cannot be.
        degraded: the models did not answer in time; these are the items most clicked for the query.
        explanation: only when asked for, and not when degraded.
        request_id, took_ms: what the gateway calls the request, and how long it worked on it.
        next_page: token of the next page; empty: there is none.
        moved: the page's token named a release or generation that is not kept any more; this page is of the
            newest. It repeats nothing.
    """

    hits: tuple[Hit, ...]
    release: str
    generation: int
    degraded: bool = False
    explanation: Explanation | None = None
    request_id: str = ""
    took_ms: float = 0.0
    next_page: str = ""
    moved: bool = False


def parse_filters(texts: Sequence[str]) -> Filters:
    """Filters as people write them: ``category=rug``, ``brand=Oak & Co``, ``price=10..50``, ``in_stock``.

    Several categories or brands are alternatives. Raises UsageError quoting the one that does not fit.
    """
    category: list[str] = []
    brands: list[str] = []
    low = high = None
    in_stock = False
    for text in texts:
        name, given, value = text.partition("=")
        match name.strip(), value.strip():
            case "category", value if value:
                category.append(value)
            case "brand", value if value:
                brands.append(value)
            case "price", value if ".." in value:
                low, high = (_price(end, text) for end in value.split("..", 1))
            case "in_stock", value if not given or value in ("true", "yes", "1"):
                in_stock = True
            case _:
                raise UsageError(
                    f"filter {text!r}: write category=NAME, brand=NAME, price=LOW..HIGH or in_stock"
                )
    return Filters(tuple(category), tuple(brands), low, high, in_stock)


def _price(text: str, whole: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"filter {whole!r}: {text!r} is not a price") from error
