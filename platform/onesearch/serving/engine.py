"""The models of one release in a Triton server, called as functions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

import numpy as np

from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ServingError
from onesearch.serving import codecs
from onesearch.serving.answers import read_answer
from onesearch.serving.conversion import answer_to
from onesearch.serving.inference import Inference
from onesearch.serving.packed import PACKED, REQUEST, pack_request, unpack_answer
from onesearch.serving.proto import onesearch_pb2 as pb
from onesearch.serving.repository import ENSEMBLE, model_name
from onesearch.serving.requests import Encoding, SearchRequest
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
    ) -> pb.SearchResponse:
        """One search, answered in the form that the gateway passes on.

        The request is checked already. A generation that is ``coming`` is opened meanwhile.

        Raises:
            UsageError: a component refuses the request.
            EngineLateError, EngineUnavailableError: no answer; something else may answer instead.
            ServingError: a component failed.
        """
        asked = request, state, self.beams, self.certify, coming
        if await self._is_packed(timeout_s):
            packed = pack_request(search_values(*asked))
            answer = await self._triton.infer_text(self._search, REQUEST, packed, PACKED, timeout_s)
            response = unpack_answer(answer)
            response.release = self.release
            return response
        outputs = ANSWER + EXPLANATION if request.explain else ANSWER
        arrays = await self._triton.infer(self._search, search_inputs(*asked), outputs, timeout_s)
        return answer_to(read_answer(arrays, self.release, request.before, request.explain))

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
        if not told.query_sid or len(told.meanings) != len(told.query_sid):
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


def search_values(
    request: SearchRequest, state: ShopperState, beams: int, certify: int, coming: int = -1
) -> dict[str, Any]:
    """What the models read of a request, with the defaults of the release."""
    return {
        "QUERY": request.query.encode(),
        "STATE": codecs.write_state(state),
        "FILTERS": codecs.write_filters(request.filters),
        "BEAMS": beams if request.beams is None else request.beams,
        "CERTIFY": request.proving(certify),
        "GUIDE": request.guide.encode(),
        "RERANK": request.rerank,
        "K": request.k,
        "OFFSET": request.offset,
        "EXPLAIN": request.explain,
        "SHOWN": request.shown,
        "CATALOGUE": (-1 if request.generation is None else request.generation, coming),
    }


def search_inputs(
    request: SearchRequest, state: ShopperState, beams: int, certify: int, coming: int = -1
) -> dict[str, np.ndarray]:
    """The same as the tensors of a batch of one."""
    values = search_values(request, state, beams, certify, coming)
    return {name: _tensor(value) for name, value in values.items()}


def _tensor(value: bytes | bool | int | tuple[int, int]) -> np.ndarray:
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, tuple):
        return np.array([value], dtype=np.int64)
    return np.array([[value]], dtype=np.bool_ if isinstance(value, bool) else np.int32)


def _text(value: bytes) -> np.ndarray:
    array = np.empty((1, 1), dtype=object)
    array[0, 0] = value
    return array
