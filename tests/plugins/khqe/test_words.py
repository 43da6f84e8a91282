from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from onesearch_khqe.words import TEXT_LIMIT, is_cjk, joins, normalise, pieces


def test_normalise() -> None:
    assert normalise("  Ｒed\tLAMP\x00 \n12 ") == "red lamp 12"
    assert normalise("香榭丽舍ＡＢ") == "香榭丽舍ab"
    assert len(normalise("x" * 100_000)) == TEXT_LIMIT


def test_pieces() -> None:
    assert pieces("3/4 in. pvc-pipe 12ft 貂皮大衣xl") == [
        "3/4", "in", "pvc", "pipe", "12", "ft", "貂皮大衣", "xl",
    ]  # fmt: skip


def test_scripts() -> None:
    assert is_cjk("大衣") and is_cjk("カ") and not is_cjk("lamp") and not is_cjk("")
    assert joins("a", "b") and joins("é", "1")
    assert not joins("a", " ") and not joins("a", "大") and not joins("大", "衣")


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert all(piece in once for piece in pieces(once))
