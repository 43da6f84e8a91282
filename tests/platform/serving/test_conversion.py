from __future__ import annotations

import numpy as np
import pytest
from onesearch.contracts import Keyword
from onesearch.errors import UsageError
from onesearch.index import Filters
from onesearch.serving import conversion
from onesearch.serving.proto import onesearch_pb2 as pb
from onesearch.serving.requests import GUIDES, Encoding, Explanation, Hit, SearchAnswer, SearchRequest
from onesearch.serving.shopper_view import Interest, SeenItem, ShopperView


def test_requests_come_back() -> None:
    for guide in GUIDES:
        filters = Filters(("rug",), ("Acme",), 1.5, None, True)
        request = SearchRequest("q", "u", 7, 3, filters, 64, True, guide, False)  # type: ignore[arg-type]
        assert conversion.request_from(conversion.request_to(request)) == request
    assert conversion.request_from(conversion.request_to(SearchRequest("q"))) == SearchRequest("q")
    timed = SearchRequest("q", asked_at_us=0, certify=0)
    assert conversion.request_from(conversion.request_to(timed)) == timed


def test_an_empty_message_asks_for_ten_and_nothing_else() -> None:
    assert conversion.request_from(pb.SearchRequest()) == SearchRequest("")
    assert conversion.request_from(pb.SearchRequest(k=0)).k == 0  # given, and to be refused
    assert conversion.request_from(pb.SearchRequest(beams=0)).beams == 0


def test_guides_have_the_same_names_everywhere() -> None:
    assert tuple(name.lower() for name in pb.Guide.keys()) == GUIDES  # noqa: SIM118 (it is no dict)
    with pytest.raises(UsageError, match="guide: 17"):
        conversion.request_from(pb.SearchRequest(guide=17))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_",
    [SearchRequest("q", k=-1), SearchRequest("\ud800"), SearchRequest("q", guide="x")],  # type: ignore[arg-type]
)
def test_what_cannot_be_sent_is_a_usage_error(request_: SearchRequest) -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        conversion.request_to(request_)


def test_answers_come_back() -> None:
    hit = Hit(3, "i1", "Oak", ("home", "desk"), "", None, True, (1, 2), 0.5, -2.0, {"a": 0.25, "b": 0.25})
    cheap = Hit(4, "i2", "Ash", (), "B", 0.0, False, (1, 2), 0.5, -2.0, {})
    told = Explanation(
        (Keyword("oak", "Material"),),
        (1, 2),
        ("x", "y"),
        (((1, 2), -2.0),),
        5,
        (4, 9),
        2,
        float("-inf"),
        0,
        ShopperView(
            {"recent": "<a_1>"}, (SeenItem("i1", "Oak", "<a_1>", "desk"),), (), (Interest("x", 1 / 3),)
        ),
        128,
    )
    answer = SearchAnswer((hit, cheap), "r", 9, False, told, "id", 1.5)
    assert conversion.answer_from(conversion.answer_to(answer)) == answer
    plain = SearchAnswer((), "r", 0, True)
    assert conversion.answer_from(conversion.answer_to(plain)) == plain


def test_encodings_carry_vectors_only_when_asked() -> None:
    one = Encoding("oak", (), (1, 2), ("x", "y"), np.array([0.5, 1.0], np.float32))
    back = conversion.encoding_from(conversion.encoding_to(one, vectors=True))
    assert back == one and back.vector.tolist() == [0.5, 1.0]
    assert conversion.encoding_from(conversion.encoding_to(one, vectors=False)).vector.shape == (0,)
