"""The gateway's protocol messages to and from the platform's own types."""

from __future__ import annotations

from typing import cast

import numpy as np

from onesearch.contracts.generator import Guide
from onesearch.contracts.tokenizer import Keyword
from onesearch.errors import UsageError
from onesearch.index import Filters
from onesearch.serving.catalogue import ItemRow
from onesearch.serving.proto import onesearch_pb2 as pb
from onesearch.serving.requests import Encoding, Explanation, Hit, SearchAnswer, SearchRequest
from onesearch.serving.shopper_view import Interest, SeenItem, ShopperView

DEFAULT_K = 10
_GUIDES = {number: cast(Guide, name.lower()) for name, number in pb.Guide.items()}
_NO_FILTERS = Filters()


def request_from(message: pb.SearchRequest) -> SearchRequest:
    """A request as it came in, unchecked but for its guide."""
    guide = _GUIDES.get(message.guide)
    if guide is None:
        raise UsageError(f"guide: {message.guide} is none of {', '.join(pb.Guide.keys())}")
    return SearchRequest(
        query=message.query,
        user_id=message.user_id,
        k=message.k if message.HasField("k") else DEFAULT_K,
        offset=message.offset,
        filters=_filters_from(message.filters) if message.HasField("filters") else _NO_FILTERS,
        beams=message.beams if message.HasField("beams") else None,
        explain=message.explain,
        guide=guide,
        rerank=not message.no_rerank,
        certify=message.certify if message.HasField("certify") else None,
        page_token=message.page_token,
        asked_at_us=message.asked_at_us if message.HasField("asked_at_us") else None,
    )


def _filters_from(message: pb.Filters) -> Filters:
    return Filters(
        tuple(message.category),
        tuple(message.brands),
        message.min_price if message.HasField("min_price") else None,
        message.max_price if message.HasField("max_price") else None,
        message.in_stock,
    )


def request_to(request: SearchRequest, request_id: str = "") -> pb.SearchRequest:
    """A request to be sent. Raises UsageError where the protocol has no form for it."""
    filters = request.filters
    try:
        return pb.SearchRequest(
            query=request.query,
            user_id=request.user_id,
            k=request.k,
            offset=request.offset,
            filters=pb.Filters(
                category=filters.category,
                brands=filters.brands,
                min_price=filters.min_price,
                max_price=filters.max_price,
                in_stock=filters.in_stock,
            )
            if filters
            else None,
            beams=request.beams,
            explain=request.explain,
            guide=pb.Guide.Value(request.guide.upper()),
            no_rerank=not request.rerank,
            request_id=request_id,
            certify=request.certify,
            page_token=request.page_token,
            asked_at_us=request.asked_at_us,
        )
    except (ValueError, TypeError) as error:  # a negative k, half a surrogate pair, an unknown guide
        raise UsageError(f"the request cannot be sent: {error}") from error


def item_to(row: ItemRow, release: str = "", generation: int = 0) -> pb.Item:
    """A row of the catalogue."""
    return pb.Item(
        item_id=row.item_id,
        title=row.title,
        category=row.category,
        brand=row.brand,
        price=row.price,
        in_stock=row.in_stock,
        sid=row.sid,
        release=release,
        generation=generation,
    )


def item_from(item: pb.Item) -> ItemRow:
    """A row of the catalogue, as it came."""
    price = item.price if item.HasField("price") else None
    return ItemRow(
        item.item_id, item.title, tuple(item.category), item.brand, price, item.in_stock, tuple(item.sid)
    )


def answer_to(answer: SearchAnswer) -> pb.SearchResponse:
    """An answer to be sent."""
    response = pb.SearchResponse(
        request_id=answer.request_id,
        release=answer.release,
        generation=answer.generation,
        degraded=answer.degraded,
        took_ms=answer.took_ms,
        next_page=answer.next_page,
        moved=answer.moved,
    )
    for hit in answer.hits:
        row = ItemRow(hit.item_id, hit.title, hit.category, hit.brand, hit.price, hit.in_stock, hit.sid)
        parts = [pb.Part(name=name, value=value) for name, value in hit.parts.items()]
        response.hits.add(
            rank=hit.rank,
            item=item_to(row),
            score=hit.score,
            log_prob=hit.log_prob,
            parts=parts,
            propensity=hit.propensity,
        )
    if answer.explanation is not None:
        response.explanation.CopyFrom(explanation_to(answer.explanation))
    return response


def explanation_to(told: Explanation) -> pb.Explanation:
    """How an answer came about, to be sent."""
    return pb.Explanation(
        keywords=[pb.Keyword(text=word.text, attribute=word.attribute) for word in told.keywords],
        query_sid=told.query_sid,
        meanings=told.meanings,
        beams=[pb.Beam(sid=sid, log_prob=log_prob) for sid, log_prob in told.beams],
        found=told.found,
        branches=told.branches,
        exact=told.exact,
        dropped=told.dropped,
        missing=told.missing,
        shopper=None if told.shopper is None else view_to(told.shopper),
        width=told.width,
    )


def answer_from(response: pb.SearchResponse) -> SearchAnswer:
    """An answer as it came."""
    hits = tuple(
        Hit(
            hit.rank,
            *item_from(hit.item),
            score=hit.score,
            log_prob=hit.log_prob,
            parts={part.name: part.value for part in hit.parts},
            propensity=hit.propensity,
        )
        for hit in response.hits
    )
    explanation = None
    if response.HasField("explanation"):
        told = response.explanation
        explanation = Explanation(
            keywords=tuple(Keyword(word.text, word.attribute) for word in told.keywords),
            query_sid=tuple(told.query_sid),
            meanings=tuple(told.meanings),
            beams=tuple((tuple(beam.sid), beam.log_prob) for beam in told.beams),
            found=told.found,
            branches=tuple(told.branches),
            exact=told.exact,
            dropped=told.dropped,
            missing=told.missing if told.HasField("missing") else None,
            shopper=view_from(told.shopper) if told.HasField("shopper") else None,
            width=told.width,
        )
    return SearchAnswer(
        hits,
        response.release,
        response.generation,
        response.degraded,
        explanation,
        response.request_id,
        response.took_ms,
        response.next_page,
        response.moved,
    )


def view_to(view: ShopperView) -> pb.Shopper:
    """How a shopper was seen, to be sent."""
    return pb.Shopper(
        user_id_tokens=[pb.UserIdToken(name=name, sid=sid) for name, sid in view.user_id_tokens.items()],
        recent=map(_seen_to, view.recent),
        stand_ins=map(_seen_to, view.stand_ins),
        interests=[pb.Interest(name=one.name, weight=one.weight) for one in view.interests],
    )


def view_from(message: pb.Shopper) -> ShopperView:
    """How a shopper was seen, as it came."""
    return ShopperView(
        {token.name: token.sid for token in message.user_id_tokens},
        tuple(map(_seen_from, message.recent)),
        tuple(map(_seen_from, message.stand_ins)),
        tuple(Interest(one.name, one.weight) for one in message.interests),
    )


def _seen_to(item: SeenItem) -> pb.SeenItem:
    return pb.SeenItem(query=item.query, item_id=item.item_id, title=item.title, sid=item.sid)


def _seen_from(item: pb.SeenItem) -> SeenItem:
    return SeenItem(item.item_id, item.title, item.sid, item.query)


def encoding_to(encoding: Encoding, vectors: bool) -> pb.Encoding:
    """An encoded text to be sent, with its vector only where asked for."""
    return pb.Encoding(
        text=encoding.text,
        keywords=[pb.Keyword(text=word.text, attribute=word.attribute) for word in encoding.keywords],
        sid=encoding.sid,
        meanings=encoding.meanings,
        vector=encoding.vector.tolist() if vectors else (),
    )


def encoding_from(message: pb.Encoding) -> Encoding:
    """An encoded text as it came."""
    return Encoding(
        message.text,
        tuple(Keyword(word.text, word.attribute) for word in message.keywords),
        tuple(message.sid),
        tuple(message.meanings),
        np.array(message.vector, dtype=np.float32),
    )
