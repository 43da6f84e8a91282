"""The steps of a search. The in-process pipeline and the Triton models call these very functions, so that
what is evaluated is what is served.

B is the batch, K the candidates of a request, L the SID levels, D the embedding's dimension.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from onesearch.contracts.generator import GeneratorServer, Guide, SearchResult
from onesearch.contracts.reward import Candidates, RewardServer
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.contracts.user_encoder import Prompt, ShopperState, UserEncoderServer
from onesearch.errors import ServingError, UsageError
from onesearch.index import CatalogueIndex, Filters, LiveTree
from onesearch.serving.shopper_view import ShopperView
from onesearch.shoppers.state import item_keys

NARROWED_TREES = 16
WITHOUT_REWARD = ("log_prob",)


@dataclass(frozen=True)
class SearchOptions:
    """What of a request the generator needs to know."""

    beams: int
    guide: Guide = "guided"
    filters: Filters = field(default_factory=Filters)
    certify: int = 0


@dataclass(frozen=True)
class Ranked:
    """An order of candidates.

    Attributes:
        order: i32[B, K], positions in the candidates, best first; padding comes last.
        totals: f32[B, K], in the candidates' own order; -inf on padding.
        parts: f32[B, K, P], in the candidates' own order.
    """

    order: np.ndarray
    totals: np.ndarray
    parts: np.ndarray


class Trees:
    """The live tree, narrowed to filters; the last few narrowings are kept."""

    def __init__(self, index: CatalogueIndex, keep: int = NARROWED_TREES) -> None:
        self._index = index
        self._keep = keep
        self._narrowed: OrderedDict[Filters, LiveTree] = OrderedDict()

    @property
    def generation(self) -> int:
        """The catalogue generation of every tree."""
        return self._index.generation

    def of(self, filters: Filters) -> LiveTree:
        """The tree in which only what the filters let through is alive."""
        if not filters:
            return self._index.live
        tree = self._narrowed.pop(filters, None) or self._index.tree_for(filters)
        self._narrowed[filters] = tree
        if len(self._narrowed) > self._keep:
            self._narrowed.popitem(last=False)
        return tree


def encode(tokenizer: TokenizerServer, queries: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Queries → their e° f32[B, D] and SIDs i32[B, L]."""
    vectors = np.asarray(tokenizer.embed(queries, "query"), dtype=np.float32)
    return vectors, np.asarray(tokenizer.quantise(vectors), dtype=np.int32)


def prompt(
    user_encoder: UserEncoderServer,
    states: Sequence[ShopperState],
    queries: Sequence[str],
    sids: np.ndarray,
    stand_ins: Sequence[np.ndarray] | None = None,
) -> Prompt:
    """Shopper states, queries and the queries' SIDs i32[B, L] → what the generator reads.

    ``stand_ins``: see :meth:`onesearch.contracts.user_encoder.UserEncoderServer.raw`.
    """
    built = user_encoder.features(states, queries, sids, stand_ins)
    prefix = np.asarray(built.prefix, dtype=np.float32)
    return Prompt(np.asarray(built.ids, dtype=np.int32), np.asarray(built.mask, dtype=bool), prefix)


def explain_shoppers(
    user_encoder: UserEncoderServer,
    index: CatalogueIndex,
    states: Sequence[ShopperState],
    queries: Sequence[str],
    sids: np.ndarray,
) -> list[ShopperView | None]:
    """How each shopper is seen, with the items' titles; None where the encoder has nothing to say.

    Raises ServingError where what it says has not the form of the contract.
    """
    told = user_encoder.explain(states, queries, sids)
    try:
        views = [ShopperView.of(one) if one else None for one in told]
    except (ValueError, TypeError, AttributeError) as error:
        raise ServingError(f"user encoder {type(user_encoder).__name__}: explain: {error}") from error
    if len(views) != len(queries):
        raise ServingError(
            f"user encoder {type(user_encoder).__name__}: explain: {len(views)} answers to {len(queries)}"
            " queries"
        )
    wanted = {item_id for view in views if view for item_id in view.item_ids()}
    rows = index.items.select("item_id", "title").filter(pl.col("item_id").is_in(list(wanted)))
    titles = dict(rows.iter_rows())
    return [view and view.titled(titles) for view in views]


def retrieve(
    generator: GeneratorServer,
    trees: Trees,
    prompts: Prompt,
    query_vecs: np.ndarray,
    options: Sequence[SearchOptions],
) -> tuple[SearchResult, Candidates]:
    """Beam search; requests of the same options are searched together."""
    groups: dict[SearchOptions, list[int]] = {}
    for row, option in enumerate(options):
        groups.setdefault(option, []).append(row)
    found: list[tuple[list[int], SearchResult, Candidates]] = []
    for option, rows in groups.items():
        part = Prompt(prompts.ids[rows], prompts.mask[rows], prompts.prefix[rows])
        tree = trees.of(option.filters)
        result = generator.search(part, query_vecs[rows], tree, option.beams, option.guide, option.certify)
        if result.widths is None:
            result = replace(result, widths=np.full(len(rows), option.beams, np.int32))
        found.append((rows, result, tree.expand(result.leaves, result.log_probs)))
    if len(found) == 1:
        return found[0][1], found[0][2]
    count = len(options)
    result = SearchResult(
        _merge([(rows, part.leaves) for rows, part, _ in found], count, -1),
        _merge([(rows, part.log_probs) for rows, part, _ in found], count, -np.inf),
        _merge([(rows, part.dropped) for rows, part, _ in found], count, -np.inf),
        _merge([(rows, part.dropped_mass) for rows, part, _ in found], count, -np.inf),
        _merge([(rows, part.branches) for rows, part, _ in found], count, 0),
        _merge([(rows, part.widths) for rows, part, _ in found if part.widths is not None], count, 0),
    )
    candidates = Candidates(
        _merge([(rows, part.items) for rows, _, part in found], count, -1),
        _merge([(rows, part.log_probs) for rows, _, part in found], count, -np.inf),
    )
    return result, candidates


def rank(
    reward: RewardServer | None,
    queries: Sequence[str],
    query_vecs: np.ndarray,
    states: Sequence[ShopperState],
    candidates: Candidates,
) -> Ranked:
    """Order candidates by the reward, ties and all without one by the generator."""
    real = candidates.items >= 0
    if reward is None:
        totals = np.where(real, candidates.log_probs, -np.inf).astype(np.float32)
        parts = np.where(real, candidates.log_probs, 0.0).astype(np.float32)[..., None]
    else:
        totals, parts = reward.score(queries, query_vecs, states, candidates)
        expected = (*candidates.items.shape, len(reward.parts))
        if totals.shape != expected[:2] or parts.shape != expected:
            raise ServingError(
                f"reward {type(reward).__name__}: totals {totals.shape} and parts {parts.shape} instead of"
                f" {expected[:2]} and {expected}"
            )
        totals = np.where(real, totals, -np.inf).astype(np.float32, copy=False)
        parts = np.asarray(parts, dtype=np.float32)
    return Ranked(np.argsort(-totals, axis=1, kind="stable").astype(np.int32), totals, parts)


def part_names(reward: RewardServer | None) -> tuple[str, ...]:
    """Names of the parts that :func:`rank` returns."""
    return WITHOUT_REWARD if reward is None else tuple(reward.parts)


def page(
    ranked: Ranked, candidates: Candidates, row: int, k: int, offset: int, hidden: np.ndarray | None = None
) -> np.ndarray:
    """Positions of the candidates on one page of request ``row``: i64[≤ k], best first.

    ``hidden`` bool[K] marks candidates that were shown already; ``offset`` counts the others.
    """
    order = ranked.order[row]
    real = candidates.items[row] >= 0
    if hidden is not None:
        real &= ~hidden
    return order[real[order]][offset : offset + k].astype(np.int64)


def seen(items: pl.DataFrame, candidates: Candidates, row: int, shown: bytes) -> np.ndarray | None:
    """bool[K]: which candidates of request ``row`` stand in ``shown``, item keys u64 one after another."""
    if not shown:
        return None
    if len(shown) % 8:
        raise UsageError("SHOWN: not a row of item keys")
    numbers = candidates.items[row]
    real = np.flatnonzero(numbers >= 0)
    keys = item_keys(items["item_id"][numbers[real]].to_list())
    hidden = np.zeros(len(numbers), bool)
    hidden[real] = np.isin(keys, np.frombuffer(shown, "<u8"))
    return hidden


def exact_count(result: SearchResult) -> np.ndarray:
    """How many of the best SIDs no wider beam could change, i32[B]."""
    certain = (result.leaves >= 0) & (result.log_probs >= result.dropped[:, None])
    return np.asarray(np.cumprod(certain, axis=1).sum(axis=1), dtype=np.int32)


def best_sids(
    item_sids: np.ndarray, candidates: Candidates, row: int, limit: int
) -> list[tuple[tuple[int, ...], float]]:
    """The first ``limit`` SIDs of request ``row`` with their log-probabilities; item SIDs are i32[N, L]."""
    best: dict[tuple[int, ...], float] = {}
    for number, log_prob in zip(candidates.items[row], candidates.log_probs[row], strict=True):
        if number < 0 or len(best) == limit:
            break
        best.setdefault(tuple(item_sids[number].tolist()), float(log_prob))
    return list(best.items())


def missing_bound(dropped_mass: float, log_probs: np.ndarray, k: int) -> int | None:
    """At most so many SIDs can be missing from the top k; None where the bound says nothing (over k).

    ``log_probs`` f32[K] are the candidates' in falling order: ``⌊exp(dropped_mass − log_prob_k)⌋``.
    """
    if dropped_mass == -np.inf:
        return 0
    alive = log_probs[np.isfinite(log_probs)][:k]
    if not len(alive) or dropped_mass - float(alive[-1]) > np.log(k + 1.0):
        return None
    return int(np.floor(np.exp(dropped_mass - float(alive[-1]))))


def _merge(parts: Sequence[tuple[list[int], np.ndarray]], count: int, fill: float) -> np.ndarray:
    """Put rows of arrays of different widths back in the order of the batch, padded with ``fill``."""
    first = parts[0][1]
    shape = (count,) if first.ndim == 1 else (count, max(array.shape[1] for _, array in parts))
    merged = np.full(shape, fill, dtype=first.dtype)
    for rows, array in parts:
        if first.ndim == 1:
            merged[rows] = array
        else:
            merged[rows, : array.shape[1]] = array
    return merged
