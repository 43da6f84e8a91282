"""How sellers of the simulated shop write: stacked, noisy titles, incomplete attributes, texts around."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from onesearch.data.demo.catalogue import DAYS, Catalogue
from onesearch.data.demo.words import CHINESE, TYPE, Words
from onesearch.data.schemas import ATTRIBUTE_TYPES, ATTRIBUTES

# How often a title says what the item has, and how often the structured attributes do.
_TOLD = np.array([0.7] * len(TYPE))
_FILLED = np.array([0.75] * len(TYPE))
for _name, _in_title, _in_fields in (
    ("Brand", 0.75, 0.92),
    ("Color", 0.7, 0.88),
    ("Price", 0.06, 0.6),
    ("Model", 0.5, 0.7),
    ("Anchor", 0.2, 0.9),
    ("Series", 0.6, 0.6),
    ("Location", 0.8, 0.6),
    ("Marketing", 0.75, 0.5),
    ("Specifications", 0.65, 0.85),
):
    _TOLD[TYPE[_name]], _FILLED[TYPE[_name]] = _in_title, _in_fields
_WRONG = 0.02
_COPIED = 0.12
_SPAM = (
    ("Gift", "2024", "Trending", "Best", "Hot", "DIY", "Must Have"),
    ("送礼", "ins风", "高颜值", "百搭", "神器", "必备", "工厂直销"),
)
_HEAD = ("Brand", "Series", "Model")
_MIDDLE = ("Location", "Season", "Modifier", "Color", "Pattern", "Material", "Style", "Function", "Price")
_TAIL = ("Scene", "Specifications", "Anchor")


@dataclass(frozen=True)
class Listings:
    """What the shop's database holds.

    Attributes:
        items: rows of the store's table ``items``.
        said: bool[N, 18], whether title or attributes tell the item's value of a type: all that a search
            engine can know.
    """

    items: pl.DataFrame
    said: np.ndarray


def write_listings(words: Words, catalogue: Catalogue, rng: np.random.Generator) -> Listings:
    """Write every listing's title, attributes and texts."""
    count, kinds = catalogue.values.shape
    has = catalogue.values >= 0
    told = has & (rng.random((count, kinds)) < _TOLD)
    filled = has & (rng.random((count, kinds)) < _FILLED)
    filled[:, TYPE["Entity"]] = rng.random(count) < 0.96
    told[:, TYPE["Entity"]] = True
    shown_values = _with_errors(catalogue, words, rng)
    luck = rng.random((count, 64))
    titles = [_title(catalogue, words, row, told[row], luck[row].tolist()) for row in range(count)]
    _copy_titles(titles, told, catalogue, rng)
    items = pl.DataFrame(
        {
            "item_id": [f"D{row:06d}" for row in range(count)],
            "title": titles,
            "category": [
                [words.departments[d].name[lang], words.groups[g][lang], words.entities[e].surface[lang][0]]
                for d, g, e, lang in zip(
                    catalogue.department.tolist(),
                    catalogue.group.tolist(),
                    catalogue.entity.tolist(),
                    catalogue.language.tolist(),
                    strict=True,
                )
            ],
            "attributes": pl.Series(_fields(catalogue, shown_values, filled), dtype=ATTRIBUTES),
            "price": catalogue.price,
            "detail_text": [_detail(catalogue, row, luck[row, 0]) for row in range(count)],
            "ocr_text": [_ocr(catalogue, row, luck[row, 1]) for row in range(count)],
            "image_uri": [f"simulated://images/D{row:06d}.jpg" for row in range(count)],
            "in_stock": catalogue.live(DAYS),
        }
    )
    return Listings(items, told | (filled & (shown_values == catalogue.values)))


def _with_errors(catalogue: Catalogue, words: Words, rng: np.random.Generator) -> np.ndarray:
    """Some structured values are simply wrong: another value of the department."""
    values = catalogue.values.copy()
    for kind in (TYPE["Color"], TYPE["Material"], TYPE["Style"], TYPE["Pattern"], TYPE["Season"]):
        wrong = np.flatnonzero((rng.random(len(values)) < _WRONG) & (values[:, kind] >= 0))
        for row in wrong:  # only where it has a value, so the department has some to choose from
            values[row, kind] = rng.choice(words.departments[catalogue.department[row]].values[kind])
    return values


def _fields(catalogue: Catalogue, values: np.ndarray, filled: np.ndarray) -> list[list[dict[str, str]]]:
    surfaces, languages = catalogue.surfaces, catalogue.language.tolist()
    rows: list[list[dict[str, str]]] = []
    for language, row, mask in zip(languages, values.tolist(), filled.tolist(), strict=True):
        rows.append(
            [
                {"type": ATTRIBUTE_TYPES[kind], "value": surfaces[kind][row[kind]][language][0]}
                for kind, shown in enumerate(mask)
                if shown
            ]
        )
    return rows


def _title(catalogue: Catalogue, words: Words, row: int, told: np.ndarray, luck: list[float]) -> str:
    language = int(catalogue.language[row])
    draw = iter(luck)

    def word(name: str) -> str:
        kind = TYPE[name]
        if not told[kind]:
            return ""
        synonyms = catalogue.surfaces[kind][catalogue.values[row, kind]][language]
        return synonyms[0] if next(draw) < 0.65 else synonyms[int(next(draw) * len(synonyms))]

    entity = words.entities[int(catalogue.entity[row])]
    names = entity.surface[language]
    main = names[0] if next(draw) < 0.65 else names[int(next(draw) * len(names))]
    stacked = [name for name in names if name != main] if next(draw) < 0.4 else []
    head = [word(name) for name in _HEAD]
    middle = [word(name) for name in _MIDDLE]
    turn = int(next(draw) * len(middle))
    middle = middle[turn:] + middle[:turn] if next(draw) < 0.5 else middle
    audience, ad = word("Audience"), word("Marketing")
    tail = [word(name) for name in _TAIL]
    if next(draw) < 0.15:
        tail.append(_SPAM[language][int(next(draw) * len(_SPAM[language]))])
    if next(draw) < 0.07:  # keyword spam: something that the item is not
        other = words.entities[int(next(draw) * len(words.entities))]
        tail.append(other.surface[language][0])
    if language == CHINESE:
        return _chinese(ad, head, middle, audience, main, stacked, tail, draw)
    return _english(ad, head, middle, audience, main, stacked, tail, draw)


def _chinese(
    ad: str,
    head: list[str],
    middle: list[str],
    audience: str,
    main: str,
    stacked: list[str],
    tail: list[str],
    draw: Iterator[float],
) -> str:
    one, two, three = next(draw), next(draw), next(draw)
    bracket = f"【{ad}】" if ad and one < 0.6 else ""
    parts = [*head, ad if not bracket else "", *middle]
    parts += [audience, main] if two < 0.6 else [main, audience]
    parts += [*tail, *stacked]
    return bracket + (" " if three < 0.2 else "").join(part for part in parts if part)


def _english(
    ad: str,
    head: list[str],
    middle: list[str],
    audience: str,
    main: str,
    stacked: list[str],
    tail: list[str],
    draw: Iterator[float],
) -> str:
    one, two, three, four = (next(draw) for _ in range(4))
    scene, *rest = tail
    parts = [f"[{ad}]" if ad and one < 0.4 else "", *head]
    parts += [audience if two < 0.4 else "", *middle, main, *stacked]
    parts += [
        f"for {audience}" if audience and two >= 0.4 else "",
        f"for {scene}" if scene and three < 0.6 else scene,
    ]
    parts += [*rest, f"- {ad}" if ad and one >= 0.4 else ""]
    text = " ".join(part for part in parts if part)
    if three < 0.55:
        text = " ".join(
            part if part == "for" or not part[:1].islower() else part[0].upper() + part[1:]
            for part in text.split()
        )
    if four < 0.03:  # a slip of the finger
        at = 1 + int(two * (len(text) - 3))
        text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def _copy_titles(titles: list[str], told: np.ndarray, catalogue: Catalogue, rng: np.random.Generator) -> None:
    """Some sellers copy the title of another listing of the same product."""
    first: dict[tuple[int, int], int] = {}
    copies = (rng.random(len(titles)) < _COPIED).tolist()
    for row, key in enumerate(zip(catalogue.product.tolist(), catalogue.language.tolist(), strict=True)):
        other = first.setdefault(key, row)
        if other != row and copies[row]:
            titles[row] = titles[other]
            told[row] = told[other]


def _detail(catalogue: Catalogue, row: int, luck: float) -> str | None:
    """What the item is, in sentences; a third of the sellers write none."""
    if luck < 0.33:
        return None
    language = int(catalogue.language[row])

    def word(name: str) -> str:
        value = catalogue.values[row, TYPE[name]]
        return catalogue.surfaces[TYPE[name]][value][language][-1] if value >= 0 else ""

    material, function, scene, audience = word("Material"), word("Function"), word("Scene"), word("Audience")
    entity = word("Entity")
    if language == CHINESE:
        parts = [
            entity,
            f"采用{material}材质" if material else "",
            function,
            f"适合{scene}" if scene else "",
            f"{audience}都喜欢" if audience else "",
        ]
        return "，".join(part for part in parts if part) + "。"
    parts = [
        f"This {entity} is made of {material}" if material else f"A well made {entity}",
        f"It is {function}" if function else "",
        f"Good for {scene}" if scene else "",
        f"For {audience}" if audience else "",
    ]
    return ". ".join(part for part in parts if part) + "."


def _ocr(catalogue: Catalogue, row: int, luck: float) -> str | None:
    """Words on the picture, as a reader of pictures would get them: prices, advertising, often nothing."""
    if luck < 0.7:
        return None
    language = int(catalogue.language[row])
    ad = catalogue.values[row, TYPE["Marketing"]]
    text = catalogue.surfaces[TYPE["Marketing"]][ad][language][0] if ad >= 0 else ""
    return f"{text} {'￥' if language == CHINESE else '$'}{catalogue.price[row]:.0f}".strip()
