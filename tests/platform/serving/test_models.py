"""The Triton models without Triton: tensors in, tensors out, compared with the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from onesearch.compiling.runtime import Runtime
from onesearch.contracts import Prompt, ShopperState
from onesearch.errors import ServingError, UsageError
from onesearch.index import Filters
from onesearch.releases.release import Release
from onesearch.serving import codecs, models, packed
from onesearch.serving.answers import read_explanation, read_hits
from onesearch.serving.conversion import answer_from
from onesearch.serving.engine import search_values
from onesearch.serving.pipeline import Pipeline, SearchRequest
from onesearch.serving.repository import STEPS, RepositorySettings, build_repository
from onesearch.serving.together import SearchModel
from onesearch.shoppers.state import Ring, item_key
from tritonclient.grpc import model_config_pb2

STRINGS = model_config_pb2.TYPE_STRING


class TritonError(Exception):
    INVALID_ARG, INTERNAL, UNAVAILABLE = "invalid", "internal", "unavailable"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Tensor:
    name: str
    array: np.ndarray

    def as_numpy(self) -> np.ndarray:
        return self.array


@dataclass
class InferenceResponse:
    output_tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None


class Request(dict[str, np.ndarray]):
    """Input tensors, and the outputs that are asked for."""

    wanted: Sequence[str] = ()

    def requested_output_names(self) -> Sequence[str]:
        return self.wanted


class Backend:
    """What Triton's Python backend gives to a model, as far as models use it."""

    TritonError, Tensor, InferenceResponse = TritonError, Tensor, InferenceResponse

    @staticmethod
    def get_input_tensor_by_name(request: dict[str, np.ndarray], name: str) -> Tensor | None:
        return Tensor(name, request[name]) if name in request else None


@pytest.fixture(scope="module")
def opened(toy_release: Release, tmp_path_factory: pytest.TempPathFactory) -> dict[str, models.Model]:
    folder = tmp_path_factory.mktemp("repository")
    build_repository(toy_release, folder)
    made = {}
    for step in STEPS:
        model = getattr(models, "".join(word.title() for word in step.split("_")) + "Model")()
        text = (folder / f"toy--{step}" / "config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        model._backend = Backend
        assert sorted(model.reads) == sorted(tensor.name for tensor in config.input)
        model.outputs = tuple(tensor.name for tensor in config.output)
        model.open(toy_release, Runtime(threads=1))
        made[step] = model
    return made


def _execute(
    model: models.Model, requests: Sequence[Mapping[str, np.ndarray]], wanted: Sequence[str] = ()
) -> list[InferenceResponse]:
    asked = [Request(request) for request in requests]
    for request in asked:
        request.wanted = wanted or [name for name in model.outputs if name != packed.PACKED]
    return model.execute(asked)


def _text(value: bytes) -> np.ndarray:
    return np.array([[value]], dtype=object)


def _tensors(request: SearchRequest, beams: int = 32) -> dict[str, np.ndarray]:
    return {
        "QUERY": _text(request.query.encode()),
        "STATE": _text(b""),
        "FILTERS": _text(codecs.write_filters(request.filters)),
        "BEAMS": np.array([[request.beams or beams]], np.int32),
        "CERTIFY": np.array([[request.certify or 0]], np.int32),
        "GUIDE": _text(request.guide.encode()),
        "RERANK": np.array([[request.rerank]]),
        "K": np.array([[request.k]], np.int32),
        "OFFSET": np.array([[request.offset]], np.int32),
        "EXPLAIN": np.array([[request.explain]]),
        "SHOWN": _text(request.shown),
        "CATALOGUE": np.array([[-1, -1]], np.int64),
    }


def _ensemble(
    opened: dict[str, models.Model], requests: list[dict[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """All steps, each with all requests in one ``execute``; the errors of a step are raised."""
    known = [dict(request) for request in requests]
    for step in STEPS:
        for tensors, response in zip(known, _execute(opened[step], known), strict=True):
            if response.error is not None:
                raise response.error
            tensors |= {tensor.name: tensor.array for tensor in response.output_tensors}
    return known


MIXED = [
    SearchRequest("red lamp", k=3, explain=True),
    SearchRequest("oak", k=20, offset=5, beams=4),
    SearchRequest("a very long query about a white wool rug", k=1, rerank=False),
    SearchRequest("wool rug", k=50, filters=Filters(category=("rug",), max_price=50.0), explain=True),
    SearchRequest("台灯", k=5, filters=Filters(brands=("nobody",))),
]


def test_a_batch_of_mixed_requests_gives_what_the_pipeline_gives(
    opened: dict[str, models.Model], pipeline: Pipeline
) -> None:
    answers = _ensemble(opened, [_tensors(request) for request in MIXED])
    for request, arrays in zip(MIXED, answers, strict=True):
        expected = pipeline.search(request)
        assert read_hits(arrays, request.offset) == expected.hits
        assert int(arrays["GENERATION"][0, 0]) == expected.generation
        if request.explain:
            assert read_explanation(arrays) == expected.explanation
        else:
            assert arrays["NOTES"][0, 0] == b""


@pytest.fixture(scope="module")
def together(toy_release: Release, tmp_path_factory: pytest.TempPathFactory) -> SearchModel:
    folder = tmp_path_factory.mktemp("together")
    build_repository(toy_release, folder, RepositorySettings(together=True))
    text = (folder / "toy--search" / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    model = SearchModel()
    model._backend = Backend
    assert sorted((*model.reads, packed.REQUEST)) == sorted(tensor.name for tensor in config.input)
    model.outputs = tuple(tensor.name for tensor in config.output)
    model.open(toy_release, Runtime(threads=1))
    return model


def test_one_process_answers_as_the_ensemble_does(
    opened: dict[str, models.Model], together: SearchModel
) -> None:
    requests = [_tensors(request) for request in MIXED]
    bad = _tensors(MIXED[0]) | {"GUIDE": _text(b"mystery")}
    apart = _ensemble(opened, requests)
    *whole, refused = _execute(together, [*requests, bad])
    assert refused.error is not None and refused.error.code == TritonError.INVALID_ARG
    for response, expected in zip(whole, apart, strict=True):
        for tensor in response.output_tensors:
            if tensor.name != "SPENT":
                np.testing.assert_array_equal(tensor.array, expected[tensor.name], tensor.name)
    spent = next(tensor.array for tensor in whole[0].output_tensors if tensor.name == "SPENT")
    assert spent.shape == (1, len(STEPS)) and (spent > 0).all()


def test_one_tensor_asks_and_one_answers(together: SearchModel, pipeline: Pipeline) -> None:
    for request in MIXED:
        values = search_values(request, ShopperState(), 32, 0)
        asked = {packed.REQUEST: _text(packed.pack_request(values))}
        [response] = _execute(together, [asked], [packed.PACKED])
        [tensor] = response.output_tensors
        answer = answer_from(packed.unpack_answer(tensor.array[0, 0]))
        expected = pipeline.search(request)
        assert answer.hits == expected.hits
        assert answer.explanation == (expected.explanation if request.explain else None)


def test_what_is_no_request_spoils_no_other(together: SearchModel) -> None:
    good = _tensors(MIXED[0])
    requests = [{packed.REQUEST: _text(b"something else")}, good, {"QUERY": good["QUERY"]}]
    broken, fine, partial = _execute(together, requests, [packed.PACKED])
    assert fine.error is None and fine.output_tensors
    for response, why in ((broken, "14 bytes are no request"), (partial, "inputs are missing: STATE")):
        assert response.error is not None and response.error.code == TritonError.INVALID_ARG
        assert why in str(response.error)


def _state(*item_ids: str) -> bytes:
    """Of a shopper who clicked on these; it ends in zero bytes, and holds many."""
    keys = np.array([item_key(item_id) for item_id in item_ids], np.uint64)
    ring = Ring(keys, np.zeros(len(keys), np.uint32), np.zeros(len(keys), np.uint8))
    raw = codecs.write_state(ShopperState("ann", ring))
    assert raw.endswith(b"\0") and b"\0\0\0" in raw
    return raw


def test_states_of_several_shoppers_come_through_as_they_are(opened: dict[str, models.Model]) -> None:
    """Zero bytes at the end too, which numpy's own texts would lose; explained only where asked for."""
    plain = _tensors(MIXED[0]) | {"STATE": _text(b"")}
    known = [plain | {"STATE": _text(_state(*ids))} for ids in (("i1",), ("i2", "i1"))]
    silent = known[0] | {"EXPLAIN": np.array([[False]])}
    answers = _ensemble(opened, [known[0], plain, silent, known[1]])
    views = [codecs.read_view(one["SHOPPER"][0, 0]) for one in answers]
    assert views[2] is None
    first, second, stranger = views[0], views[3], views[1]
    assert first is not None and second is not None and stranger is not None
    assert [interest.weight for interest in first.interests] == [1.0]
    assert first.user_id_tokens["recent"] == second.user_id_tokens["recent"] != ""
    assert stranger.user_id_tokens == {} and len(stranger.stand_ins) == 3 and stranger.stand_ins[0].title


def test_nothing_is_explained_where_nobody_asks(
    opened: dict[str, models.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explain(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(opened["user_encoder"].held.at(-1)[1], "explain", explain)  # type: ignore[attr-defined]
    request = _tensors(SearchRequest("red lamp")) | {"STATE": _text(_state("i1"))}
    assert _ensemble(opened, [request])[0]["SHOPPER"][0, 0] == b""


def test_prefixes_of_different_shapes_are_searched_apart(opened: dict[str, models.Model]) -> None:
    """A prefix of zeros is not no prefix: the generator attends to it."""
    known = _ensemble(opened, [_tensors(request) for request in MIXED[:3]])
    assert known[0]["PREFIX"].shape == (1, 0, 0)
    rng = np.random.default_rng(0)
    for at, shape in ((1, (1, 2, 256)), (2, (1, 0, 4))):
        known[at]["PREFIX"] = rng.normal(size=shape).astype(np.float32)
    seen: list[tuple[int, ...]] = []
    generator = opened["generator"]._generator  # type: ignore[attr-defined]
    search = generator.search

    def spied(prompt: Prompt, *rest: object) -> object:
        seen.append(prompt.prefix.shape)
        return search(prompt, *rest)

    generator.search = spied
    try:
        together = _execute(opened["generator"], [*known, known[1]])
    finally:
        del generator.search
    assert sorted(seen) == [(1, 0, 0), (1, 0, 4), (2, 2, 256)]
    for response, tensors in zip(together, [*known, known[1]], strict=True):
        alone = _execute(opened["generator"], [tensors])[0]
        for one, other in zip(response.output_tensors, alone.output_tensors, strict=True):
            np.testing.assert_array_equal(one.array, other.array)


def test_requests_that_meet_late_do_not_widen_each_other(opened: dict[str, models.Model]) -> None:
    """One came from a narrow search and one from a wide one; the reward sees them together."""
    narrow, wide = ([_tensors(MIXED[at])] for at in (1, 0))
    alone = [_ensemble(opened, requests)[0] for requests in (narrow, wide)]
    assert alone[0]["ITEMS"].shape != alone[1]["ITEMS"].shape
    for response, expected in zip(_execute(opened["reward"], alone), alone, strict=True):
        for tensor in response.output_tensors:
            np.testing.assert_array_equal(tensor.array, expected[tensor.name])


def test_tensors_have_the_types_that_the_config_names(
    opened: dict[str, models.Model], toy_release: Release, tmp_path: Path
) -> None:
    build_repository(toy_release, tmp_path)
    arrays = _ensemble(opened, [_tensors(MIXED[0])])[0]
    numpy_of = {"TYPE_INT32": "int32", "TYPE_INT64": "int64", "TYPE_FP32": "float32", "TYPE_FP64": "float64"}
    numpy_of |= {"TYPE_BOOL": "bool", "TYPE_STRING": "object"}
    for step in STEPS:
        text = (tmp_path / f"toy--{step}" / "config.pbtxt").read_text()
        for tensor in text_format.Parse(text, model_config_pb2.ModelConfig()).output:
            array = arrays[tensor.name]
            assert array.dtype == numpy_of[model_config_pb2.DataType.Name(tensor.data_type)], tensor.name
            assert array.ndim == 1 + len(tensor.dims), tensor.name
            assert all(wanted in (-1, got) for wanted, got in zip(tensor.dims, array.shape[1:], strict=True))


def test_one_bad_request_does_not_spoil_the_others(opened: dict[str, models.Model]) -> None:
    good, bad = _tensors(MIXED[0]), _tensors(MIXED[0]) | {"QUERY": _text(b"\xff")}
    responses = _execute(opened["tokenizer"], [good, bad, good])
    assert [response.error is None for response in responses] == [True, False, True]
    assert responses[1].error.code == TritonError.INVALID_ARG and "UTF-8" in str(responses[1].error)


@pytest.mark.parametrize(
    ("step", "change", "said"),
    [
        ("generator", {"FILTERS": _text(b"{")}, "FILTERS: not JSON"),
        ("generator", {"GUIDE": _text(b"mystery")}, "GUIDE: 'mystery'"),
        ("generator", {"BEAMS": np.array([[13]], np.int32)}, "bad luck"),
        ("user_encoder", {"STATE": _text(b"[]")}, "STATE"),
    ],
)
def test_what_a_step_refuses_is_the_requests_fault(
    opened: dict[str, models.Model], step: str, change: dict[str, np.ndarray], said: str
) -> None:
    with pytest.raises(TritonError, match=said) as caught:
        _ensemble(opened, [_tensors(MIXED[0]) | change])
    assert caught.value.code == TritonError.INVALID_ARG


def test_generations_are_never_mixed(opened: dict[str, models.Model]) -> None:
    known = _ensemble(opened, [_tensors(MIXED[0])])[0] | {"GENERATION": np.array([[8]])}
    for step in ("reward", "resolver"):
        response = _execute(opened[step], [known])[0]
        assert response.error is not None and response.error.code == TritonError.UNAVAILABLE
        assert "generation 8 of the catalogue is not open" in str(response.error)


def test_a_failing_component_is_ours_and_named(opened: dict[str, models.Model]) -> None:
    known = _ensemble(opened, [_tensors(MIXED[0])])[0]
    response = _execute(opened["reward"], [known | {"ITEMS": known["ITEMS"] + 10_000}])[0]
    assert response.error.code == TritonError.INTERNAL and "IndexError" in str(response.error)


def test_a_long_error_is_cut() -> None:
    assert models.told(UsageError("k: 0")) == "k: 0" and models.told(KeyError("x")) == "KeyError: 'x'"
    assert len(models.told(ValueError("x" * 100_000))) < 1_100


def test_rerank_has_one_value_a_request(opened: dict[str, models.Model]) -> None:
    known = _ensemble(opened, [_tensors(MIXED[0])])[0]
    twice = {name: np.concatenate([array, array]) for name, array in known.items()}
    twice["RERANK"] = np.array([[True], [False]])
    with pytest.raises(UsageError, match="RERANK"):
        opened["reward"].run(twice)


@pytest.mark.skipif(int(np.__version__[0]) < 2, reason="this is the numpy that Triton wants")
def test_the_wrong_numpy_is_refused_at_start() -> None:
    with pytest.raises(ServingError, match="numpy<2"):
        models.TokenizerModel().initialize({})
