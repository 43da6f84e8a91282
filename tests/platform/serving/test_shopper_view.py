from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onesearch.cli._shopper import about_shopper
from onesearch.errors import ServingError
from onesearch.serving import codecs, conversion, steps
from onesearch.serving.pipeline import Pipeline
from onesearch.serving.shopper_view import Interest, SeenItem, ShopperView
from rich.console import Console

TOLD: dict[str, Any] = {
    "user_id_tokens": {"recent": "<a_1><b_2>", "long": np.array([3, 4], np.int32)},
    "recent": [
        {"query": "oak desk", "item_id": "i3", "sid": "<a_1><b_2>"},
        {"query": "lamp"},
        {"query": "", "item_id": "i99999", "sid": (5, 6)},
    ],
    "interests": [{"name": "Brand: Oak & Co", "weight": np.float32(0.5)}, {"name": "desk", "weight": 1 / 3}],
    "something new": {"a": 1},
}
VIEW = ShopperView(
    {"recent": "<a_1><b_2>", "long": "<a_3><b_4>"},
    (
        SeenItem("i3", "", "<a_1><b_2>", "oak desk"),
        SeenItem("", "", "", "lamp"),
        SeenItem("i99999", "", "<a_5><b_6>", ""),
    ),
    (),
    (Interest("Brand: Oak & Co", 0.5), Interest("desk", 1 / 3)),
)


def test_what_encoders_tell_is_read_and_typed() -> None:
    assert ShopperView.of(TOLD) == VIEW
    assert ShopperView.of({}) == ShopperView()


def test_views_come_back_from_bytes_and_messages() -> None:
    assert codecs.read_view(codecs.write_view(VIEW)) == VIEW
    assert codecs.write_view(None) == b"" and codecs.read_view(b"") is None
    assert conversion.view_from(conversion.view_to(VIEW)) == VIEW
    assert conversion.view_from(conversion.view_to(ShopperView())) == ShopperView()


class Tells:
    """A user encoder of which only ``explain`` is there."""

    def __init__(self, *told: dict[str, Any]) -> None:
        self.told = told

    def explain(self, *arguments: object) -> list[dict[str, Any]]:
        return list(self.told)


def test_titles_are_those_of_the_catalogue(pipeline: Pipeline) -> None:
    index, sids = pipeline.context.index, np.zeros((2, 3), np.int32)
    views = steps.explain_shoppers(Tells(TOLD, {}), index, [], ["a", "b"], sids)  # type: ignore[arg-type]
    assert views[1] is None and views[0] is not None
    assert [item.title for item in views[0].recent] == [index.items["title"][3], "", ""]


@pytest.mark.parametrize("told", [{"recent": 3}, {"user_id_tokens": ["a"]}, {"interests": [{"weight": "x"}]}])
def test_what_breaks_the_contract_is_told_by_name(pipeline: Pipeline, told: dict[str, Any]) -> None:
    with pytest.raises(ServingError, match="user encoder Tells: explain"):
        steps.explain_shoppers(Tells(told), pipeline.context.index, [], ["a"], np.zeros((1, 3)))  # type: ignore[arg-type]
    with pytest.raises(ServingError, match="0 answers to 1 queries"):
        steps.explain_shoppers(Tells(), pipeline.context.index, [], ["a"], np.zeros((1, 3)))  # type: ignore[arg-type]


def _shown(user_id: str, view: ShopperView, width: int = 100) -> list[str]:
    console = Console(width=width, record=True, force_terminal=False)
    console.print(about_shopper(user_id, view, width))
    return console.export_text().splitlines()


def test_a_known_shopper_on_the_screen() -> None:
    titled = VIEW.titled({"i3": "Oak desk [bold]no 3"})
    shown = _shown("ann", titled)
    text = "\n".join(shown)
    assert shown[0].split() == ["shopper", "ann"]
    assert "<a_1><b_2>" in text and "<a_3><b_4>" in text
    desk, lamp, recommended = (next(at for at, line in enumerate(shown) if word in line) for word in
                               ("Oak desk [bold]no 3", "nothing clicked", "recommended"))  # fmt: skip
    assert desk < lamp < recommended  # the newest last; titles are never markup
    assert "oak desk" in shown[desk] and "→" in shown[desk]
    assert "50%" in text and "33%" in text and "Brand: Oak & Co" in text
    narrow = _shown("ann", titled, width=60)
    assert all(len(line.rstrip()) <= 60 for line in narrow)
    assert "<a_5><b_6>" in text and "<a_5><b_6>" not in "".join(narrow)


def test_a_cold_shopper_on_the_screen() -> None:
    cold = ShopperView(stand_ins=(SeenItem("i1", "Red lamp", "<a_1>"), SeenItem("i2", "Blue lamp", "<a_2>")))
    text = "\n".join(_shown("", cold))
    for words in ("anonymous", "nothing is known", "most clicked for the query", "Red lamp", "Blue lamp"):
        assert words in text
    assert "→" not in text
