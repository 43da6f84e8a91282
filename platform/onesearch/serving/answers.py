"""The tensors that the models answer with, as an answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onesearch.serving import codecs
from onesearch.serving.requests import Explanation, Hit, SearchAnswer
from onesearch.serving.wire import ANSWER


def read_answer(arrays: Mapping[str, np.ndarray], release: str, before: int, explain: bool) -> SearchAnswer:
    """What a release's models found; ``before``: places before the first."""
    return SearchAnswer(
        read_hits(arrays, before),
        release,
        int(arrays["GENERATION"][0, 0]),
        explanation=read_explanation(arrays) if explain else None,
    )


def read_hits(arrays: Mapping[str, np.ndarray], offset: int) -> tuple[Hit, ...]:
    """The items of an answer."""
    count = int(arrays["COUNT"][0, 0])
    names = [name.decode() for name in arrays["PART_NAMES"][0]]
    values = {name: arrays[name][0, :count].tolist() for name in ANSWER[3:]}
    hits = []
    for at in range(count):
        category = values["CATEGORY"][at].decode()
        price = values["PRICE"][at]
        hits.append(
            Hit(
                rank=offset + at + 1,
                item_id=values["ITEM_ID"][at].decode(),
                title=values["TITLE"][at].decode(),
                category=tuple(category.split(codecs.CATEGORY_SEPARATOR)) if category else (),
                brand=values["BRAND"][at].decode(),
                price=None if price != price else price,
                in_stock=values["IN_STOCK"][at],
                sid=tuple(values["SID"][at]),
                score=values["SCORE"][at],
                log_prob=values["LOG_PROB"][at],
                parts=dict(zip(names, values["SCORE_PARTS"][at], strict=True)),
            )
        )
    return tuple(hits)


def read_explanation(arrays: Mapping[str, np.ndarray]) -> Explanation:
    """The explanation in an answer."""
    keywords, meanings = codecs.read_notes(arrays["NOTES"][0, 0])
    log_probs = arrays["BEAM_LOG_PROBS"][0].tolist()
    beams = [
        (tuple(sid), score) for sid, score in zip(arrays["BEAM_SIDS"][0].tolist(), log_probs, strict=True)
    ]
    missing = int(arrays["MISSING"][0, 0])
    return Explanation(
        keywords=keywords,
        query_sid=tuple(arrays["QUERY_SID"][0].tolist()),
        meanings=meanings,
        beams=tuple((sid, score) for sid, score in beams if score > -np.inf),
        found=int(arrays["FOUND"][0, 0]),
        branches=tuple(arrays["BRANCHES"][0].tolist()),
        exact=int(arrays["EXACT"][0, 0]),
        dropped=float(arrays["DROPPED"][0, 0]),
        missing=None if missing < 0 else missing,
        width=int(arrays["WIDTH"][0, 0]),
        shopper=codecs.read_view(arrays["SHOPPER"][0, 0]),
    )
