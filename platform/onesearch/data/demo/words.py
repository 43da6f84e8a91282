"""The simulated shop's words: attribute values, entities, departments and brands, in English and Chinese."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from onesearch.data.schemas import ATTRIBUTE_TYPES

ENGLISH, CHINESE = 0, 1
TYPE = {name: at for at, name in enumerate(ATTRIBUTE_TYPES)}
"""Number of each attribute type."""
SEASONS = ("spring", "summer", "autumn", "winter")

Surface = tuple[tuple[str, ...], tuple[str, ...]]
"""How a value is written: English synonyms and Chinese ones, the most usual first."""


@dataclass(frozen=True)
class Entity:
    """A kind of product: names, group, typical price and the season (0 … 3) when most look for it."""

    surface: Surface
    group: int
    department: int
    price: float
    season: int


@dataclass(frozen=True)
class Department:
    """A department: its names and, by attribute type, the values that its items can have."""

    name: tuple[str, str]
    values: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Words:
    """Everything the shop can say.

    Attributes:
        surfaces: by attribute type, the values in order of their numbers. Entities are values of type
            Entity; the types Brand and Model are made up per world, not listed here.
    """

    surfaces: tuple[tuple[Surface, ...], ...]
    entities: tuple[Entity, ...]
    groups: tuple[tuple[str, str], ...]
    departments: tuple[Department, ...]
    brand_parts: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]

    def brands(self, count: int, rng: np.random.Generator) -> list[Surface]:
        """Names for ``count`` different brands."""
        latin, latin_end, han, han_end = self.brand_parts
        english = rng.permutation([start + end for start in latin for end in latin_end])[:count]
        chinese = rng.permutation([start + end for start in han for end in han_end])[:count]
        return [((str(en),), (str(zh),)) for en, zh in zip(english, chinese, strict=True)]


@cache
def load_words() -> Words:
    """Read ``vocabulary.toml``."""
    raw = tomllib.loads((files(__package__) / "vocabulary.toml").read_text(encoding="utf-8"))
    numbers: dict[str, dict[str, int]] = {name: {} for name in ATTRIBUTE_TYPES}

    def number(kind: str, text: str) -> int:
        return numbers[kind].setdefault(text, len(numbers[kind]))

    shared = {kind: tuple(number(kind, text) for text in texts) for kind, texts in raw["values"].items()}
    shared["Series"] = tuple(number("Series", text) for text in raw["brands"]["series"])
    audiences = {text.split("|")[0].split(" / ")[0]: at for text, at in numbers["Audience"].items()}
    entities: list[Entity] = []
    groups: list[tuple[str, str]] = []
    departments: list[Department] = []
    for entry in raw["departments"]:
        own = {
            kind: tuple(number(kind, text) for text in texts) for kind, texts in raw[entry["words"]].items()
        }
        values = {TYPE[kind]: found for kind, found in {**shared, **own}.items()}
        values[TYPE["Audience"]] = tuple(audiences[name] for name in entry["audience"])
        for kind in entry.get("without", []):
            del values[TYPE[kind]]
        for group in entry["groups"]:
            for text in group["entities"]:
                english, chinese, price, season = text.split(" / ")
                number("Entity", f"{english} / {chinese}")
                entities.append(
                    Entity(
                        _surface(f"{english} / {chinese}"),
                        len(groups),
                        len(departments),
                        float(price),
                        SEASONS.index(season),
                    )
                )
            groups.append(_pair(group["name"]))
        departments.append(Department(_pair(entry["name"]), values))
    surfaces = tuple(tuple(_surface(text) for text in numbers[kind]) for kind in ATTRIBUTE_TYPES)
    made = raw["brands"]
    parts = tuple(tuple(made[key]) for key in ("latin", "latin_end", "han", "han_end"))
    return Words(surfaces, tuple(entities), tuple(groups), tuple(departments), parts)  # type: ignore[arg-type]


def _surface(text: str) -> Surface:
    english, chinese = text.split(" / ")
    return tuple(english.split("|")), tuple(chinese.split("|"))


def _pair(text: str) -> tuple[str, str]:
    english, chinese = text.split(" / ")
    return english, chinese
