"""The models of one release in a Triton server, called as functions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Self

import numpy as np

from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ServingError
from onesearch.serving import codecs
from onesearch.serving.inference import Inference
from onesearch.serving.packed import PACKED, REQUEST, pack_request, unpack_answer
from onesearch.serving.repository import ENSEMBLE, model_name
from onesearch.serving.requests import Encoding, Explanation, Hit, SearchAnswer, SearchRequest
from onesearch.serving.wire import ANSWER, EXPLANATION
from onesearch.shoppers.state import Recent, Ring

_OPENING_S = 0.02


class Engine:
    """Calls the models of a release. Any number of calls at once."""

    def __init__(self, address: str, release: str, beams: int, certify: int = 0) -> None:
        self.release = release
        self.beams = beams
        self.certify = certify
        self._search = model_name(release, ENSEMBLE)
        self._tokenizer = model_name(release, "tokenizer")
        self._packed: bool | None = None
        self._triton = Inference(address)

    async def search(
        self, request: SearchRequest, state: ShopperState, timeout_s: float, coming: int = -1
    ) -> SearchAnswer:
        """One search. The request is checked already. A generation that is ``coming`` is opened meanwhile.

        Raises:
            UsageError: a component refuses the request.
            EngineLateError, EngineUnavailableError: no answer; something else may answer instead.
            ServingError: a component failed.
        """
        inputs = search_inputs(request, state, self.beams, self.certify, coming)
        if await self._is_packed(timeout_s):
            packed = {REQUEST: _text(pack_request(inputs))}
            answer = await self._triton.infer(self._search, packed, (PACKED,), timeout_s)
            arrays = unpack_answer(answer[PACKED][0, 0])
        else:
            outputs = ANSWER + EXPLANATION if request.explain else ANSWER
            arrays = await self._triton.infer(self._search, inputs, outputs, timeout_s)
        return SearchAnswer(
            read_hits(arrays, request.before),
            self.release,
            int(arrays["GENERATION"][0, 0]),
            explanation=read_explanation(arrays) if request.explain else None,
        )

    async def encode(self, texts: Sequence[str], timeout_s: float) -> tuple[Encoding, ...]:
        """What the tokenizer makes of texts; raises as :meth:`search` does."""
        inputs = {
            "QUERY": np.array([[text.encode()] for text in texts], dtype=object),
            "EXPLAIN": np.ones((len(texts), 1), dtype=bool),
        }
        arrays = await self._triton.infer(self._tokenizer, inputs, (), timeout_s)
        encodings = []
        for row, text in enumerate(texts):
            keywords, meanings = codecs.read_notes(arrays["NOTES"][row, 0])
            sid = tuple(arrays["QUERY_SID"][row].tolist())
            encodings.append(Encoding(text, keywords, sid, meanings, arrays["QUERY_VEC"][row]))
        return tuple(encodings)

    async def ready(self, timeout_s: float = 0.5) -> bool:
        """Whether the whole search is loaded."""
        return await self._triton.ready(self._search, timeout_s)

    async def check_itself(self, timeout_s: float = 30.0) -> None:
        """One search from end to end, as a start-up check, for a shopper of whom a little is known: what is
        made when it is first needed is there before the first real search.

        Raises ServingError where text or numbers do not come through. That happens where the backend's
        Python has numpy 2: it makes tensors of 0 bytes and says nothing.
        """
        try:
            answer = await self.search(SearchRequest("a", k=1, explain=True), _somebody(), timeout_s)
        except ServingError as error:
            hint = " (does the backend's Python have numpy 2?)" if "byte size mismatch" in str(error) else ""
            raise ServingError(f"the start-up search failed{hint}: {error}") from error
        told = answer.explanation
        if told is None or not told.query_sid or len(told.meanings) != len(told.query_sid):
            raise ServingError("the start-up search came back without the query's semantic ID")

    async def open_generation(self, number: int, timeout_s: float) -> None:
        """Have every model open a generation of the catalogue, and see one search answered under it.

        Raises ServingError where that does not come about in time; the last error says why.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        probe = SearchRequest("a", k=1)
        with suppress(ServingError):  # all begin at once; while they do so they answer under what they have
            await self.search(probe, _somebody(), timeout_s, coming=number)
        while True:
            try:
                await self.search(replace(probe, generation=number), _somebody(), timeout_s)
                return
            except ServingError as error:
                if loop.time() > until:
                    raise ServingError(f"generation {number} is not open in time: {error}") from error
            await asyncio.sleep(_OPENING_S)

    async def close(self) -> None:
        """Close the connections."""
        await self._triton.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _is_packed(self, timeout_s: float) -> bool:
        """Whether the model that searches takes and gives one tensor: asked once."""
        if self._packed is None:
            self._packed = PACKED in await self._triton.outputs(self._search, timeout_s)
        return self._packed


def _somebody() -> ShopperState:
    ring = Ring(np.ones(1, np.uint64), np.ones(1, np.uint32), np.zeros(1, np.uint8))
    return ShopperState("a", ring, ring, (Recent("a", 1, 1),), (1, 1, 1))


def search_inputs(
    request: SearchRequest, state: ShopperState, beams: int, certify: int, coming: int = -1
) -> dict[str, np.ndarray]:
    """What the models read of a request, with the defaults of the release."""
    return {
        "QUERY": _text(request.query.encode()),
        "STATE": _text(codecs.write_state(state)),
        "FILTERS": _text(codecs.write_filters(request.filters)),
        "BEAMS": _number(beams if request.beams is None else request.beams),
        "CERTIFY": _number(request.proving(certify)),
        "GUIDE": _text(request.guide.encode()),
        "RERANK": np.array([[request.rerank]]),
        "K": _number(request.k),
        "OFFSET": _number(request.offset),
        "EXPLAIN": np.array([[request.explain]]),
        "SHOWN": _text(request.shown),
        "CATALOGUE": np.array([[-1 if request.generation is None else request.generation, coming]]),
    }


def read_hits(arrays: dict[str, np.ndarray], offset: int) -> tuple[Hit, ...]:
    """The items of an answer of the ensemble."""
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


def read_explanation(arrays: dict[str, np.ndarray]) -> Explanation:
    """The explanation in an answer of the ensemble."""
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


def _text(value: bytes) -> np.ndarray:
    array = np.empty((1, 1), dtype=object)
    array[0, 0] = value
    return array


def _number(value: int) -> np.ndarray:
    return np.array([[value]], dtype=np.int32)
