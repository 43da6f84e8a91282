"""The whole search in one process: the four components called one after another, no server between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from onesearch.compiling.runtime import Runtime
from onesearch.contracts.generator import GeneratorServer, Guide, SearchResult
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.reward import Candidates, RewardServer
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.contracts.user_encoder import Prompt, ShopperState, UserEncoderServer
from onesearch.index import CatalogueIndex, Filters
from onesearch.serving import steps
from onesearch.serving.catalogue import ItemTable
from onesearch.serving.requests import EXPLAINED_BEAMS, Explanation, Hit, Limits, SearchAnswer, SearchRequest

if TYPE_CHECKING:
    from onesearch.releases.release import Release

__all__ = ["Pipeline", "Retrieved", "SearchAnswer", "SearchRequest"]


@dataclass(frozen=True)
class Retrieved:
    """What came out of recall for B queries.

    Attributes:
        query_vecs: f32[B, D]. query_sids: i32[B, L].
        prompt: what the generator read.
        result: the SIDs that the beams reached. candidates: their live items.
    """

    query_vecs: np.ndarray
    query_sids: np.ndarray
    prompt: Prompt
    result: SearchResult
    candidates: Candidates


class Pipeline:
    """Query in, items out. Not safe for more than one thread at a time, as the components are not."""

    def __init__(
        self,
        context: ServingContext,
        tokenizer: TokenizerServer,
        user_encoder: UserEncoderServer,
        generator: GeneratorServer,
        reward: RewardServer | None = None,
        beams: int = 512,
        release: str = "",
        limits: Limits | None = None,
        certify: int = 0,
    ) -> None:
        self.context = context
        self.tokenizer = tokenizer
        self.user_encoder = user_encoder
        self.generator = generator
        self.reward = reward
        self.beams = beams
        self.certify = certify
        self.release = release or context.release.name
        self.limits = limits or Limits()
        self._trees = steps.Trees(context.index)
        self._table = ItemTable.of(context.index)

    @classmethod
    def of_release(cls, release: Release, runtime: Runtime | None = None) -> Pipeline:
        """Open all components of a release."""
        context = release.context(runtime or Runtime())
        opened: dict[str, Any] = {
            role: release.server(role, context)
            for role in ("tokenizer", "user_encoder", "generator", "reward")
        }
        serving = release.config.serving
        return cls(context, **opened, beams=serving.beams, release=release.name, certify=serving.certify)

    def renewed(self, release: Release, index: CatalogueIndex) -> Pipeline:
        """The same release over another generation of its catalogue; both may be used."""
        context = replace(self.context, index=index)
        return Pipeline(
            context,
            self.tokenizer,
            cast(UserEncoderServer, release.renewed("user_encoder", self.user_encoder, context)),
            self.generator,
            cast(RewardServer, release.renewed("reward", self.reward, context)) if self.reward else None,
            self.beams,
            self.release,
            self.limits,
            self.certify,
        )

    def candidates(
        self,
        queries: Sequence[str],
        states: Sequence[ShopperState] | None = None,
        beams: int | None = None,
        guide: Guide = "guided",
        filters: Filters | None = None,
        stand_ins: Sequence[np.ndarray] | None = None,
        certify: int | None = None,
    ) -> Retrieved:
        """Recall for B queries: everything the beams reached, in the generator's order.

        ``stand_ins`` (see :meth:`onesearch.contracts.user_encoder.UserEncoderServer.raw`) are given where the
        search is one of the past, and what the encoder learnt from the whole log would tell the answer.
        """
        states = states if states is not None else [ShopperState()] * len(queries)
        vectors, sids = steps.encode(self.tokenizer, queries)
        prompt = steps.prompt(self.user_encoder, states, queries, sids, stand_ins)
        sure = self.certify if certify is None else certify
        option = steps.SearchOptions(beams or self.beams, guide, filters or Filters(), sure)
        result, candidates = steps.retrieve(
            self.generator, self._trees, prompt, vectors, [option] * len(queries)
        )
        return Retrieved(vectors, sids, prompt, result, candidates)

    def rank(
        self, queries: Sequence[str], states: Sequence[ShopperState] | None, retrieved: Retrieved
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order what recall found: positions i32[B, K] best first, totals f32[B, K], parts f32[B, K, P]."""
        states = states if states is not None else [ShopperState()] * len(queries)
        ranked = steps.rank(self.reward, queries, retrieved.query_vecs, states, retrieved.candidates)
        return ranked.order, ranked.totals, ranked.parts

    def ranked(
        self, queries: Sequence[str], states: Sequence[ShopperState] | None, retrieved: Retrieved
    ) -> list[np.ndarray]:
        """The items that recall found, best first: item numbers i32[≤ K] of each query."""
        order, _, _ = self.rank(queries, states, retrieved)
        rows = np.take_along_axis(retrieved.candidates.items, order, axis=1)
        return [row[row >= 0] for row in rows]

    def search(self, request: SearchRequest, state: ShopperState | None = None) -> SearchAnswer:
        """One search from text to items. Raises UsageError for a request out of bounds."""
        self.limits.check(request)
        states = [state or ShopperState(request.user_id)]
        queries = [request.query]
        found = self.candidates(
            queries,
            states,
            request.beams,
            request.guide,
            request.filters,
            certify=request.proving(self.certify),
        )
        reward = self.reward if request.rerank else None
        ranked = steps.rank(reward, queries, found.query_vecs, states, found.candidates)
        hidden = steps.seen(self.context.index.items, found.candidates, 0, request.shown)
        at = steps.page(ranked, found.candidates, 0, request.k, request.offset, hidden)
        rows = self._table.rows(found.candidates.items[0, at])
        names = steps.part_names(reward)
        hits = tuple(
            Hit(
                request.before + place + 1,
                *row,
                score=float(ranked.totals[0, position]),
                log_prob=float(found.candidates.log_probs[0, position]),
                parts=dict(zip(names, ranked.parts[0, position].tolist(), strict=True)),
            )
            for place, (position, row) in enumerate(zip(at, rows, strict=True))
        )
        explanation = self._explain(request, states, found) if request.explain else None
        return SearchAnswer(hits, self.release, self._trees.generation, explanation=explanation)

    def _explain(
        self, request: SearchRequest, states: Sequence[ShopperState], found: Retrieved
    ) -> Explanation:
        sid = tuple(found.query_sids[0].tolist())
        mass = float(found.result.dropped_mass[0])
        [shopper] = steps.explain_shoppers(
            self.user_encoder, self.context.index, states, [request.query], found.query_sids
        )
        return Explanation(
            keywords=tuple(self.tokenizer.keywords([request.query])[0]),
            query_sid=sid,
            meanings=tuple(self.tokenizer.describe(sid)),
            beams=tuple(steps.best_sids(self._table.sids, found.candidates, 0, EXPLAINED_BEAMS)),
            found=int((found.result.leaves[0] >= 0).sum()),
            branches=tuple(found.result.branches[0].tolist()),
            exact=int(steps.exact_count(found.result)[0]),
            dropped=float(found.result.dropped[0]),
            missing=steps.missing_bound(mass, found.candidates.log_probs[0], request.before + request.k),
            shopper=shopper,
            width=0 if found.result.widths is None else int(found.result.widths[0]),
        )
