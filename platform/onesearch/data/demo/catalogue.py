"""The simulated catalogue's truth: what each item is, whether or not its title says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onesearch.data.demo.words import CHINESE, ENGLISH, TYPE, Surface, Words

DAYS = 365
"""Length of the logged year; simulated shoppers act after it."""
LATENT = 16
"""Dimension of the space in which tastes and items meet."""
TASTE_TYPES = tuple(
    TYPE[name] for name in ("Brand", "Color", "Style", "Pattern", "Material", "Scene", "Series")
)
"""Attribute types that a taste is about."""

# How often an item has a value of a type at all. Entity and Price always; Model goes by product.
_HAS = {
    "Modifier": 0.65,
    "Brand": 0.9,
    "Material": 0.8,
    "Style": 0.65,
    "Function": 0.6,
    "Location": 0.22,
    "Audience": 0.6,
    "Color": 0.75,
    "Scene": 0.5,
    "Specifications": 0.6,
    "Model": 0.55,
    "Anchor": 0.3,
    "Series": 0.45,
    "Marketing": 0.5,
    "Season": 0.5,
    "Pattern": 0.5,
}
_BRANDS = 180
_LISTINGS_A_PRODUCT = 1.2


@dataclass(frozen=True)
class Catalogue:
    """N listings of products. Arrays are in item-number order.

    Attributes:
        surfaces: by attribute type, how each value is written; those of Model are per product.
        product: i32[N], which product a listing offers: several sellers list the same one.
        entity, group, department: i32[N]. language: i8[N], 0 English, 1 Chinese.
        values: i32[N, 18], number of the item's value by attribute type; -1: it has none.
        price: f64[N]; price_level: f32[N], standardised log price within the entity.
        quality: f32[N], what everybody likes or not. latent: f32[N, 16], norm 4: tastes are unit vectors in
            this space.
        launch, retire: i32[N], the first day on sale and the first day no more on sale.
    """

    surfaces: tuple[tuple[Surface, ...], ...]
    product: np.ndarray
    entity: np.ndarray
    group: np.ndarray
    department: np.ndarray
    language: np.ndarray
    values: np.ndarray
    price: np.ndarray
    price_level: np.ndarray
    quality: np.ndarray
    latent: np.ndarray
    launch: np.ndarray
    retire: np.ndarray

    def __len__(self) -> int:
        return len(self.entity)

    def live(self, day: int) -> np.ndarray:
        """bool[N]: on sale that day."""
        return (self.launch <= day) & (day < self.retire)


def make_catalogue(words: Words, items: int, rng: np.random.Generator) -> Catalogue:
    """Make a catalogue of ``items`` listings."""
    products = int(items / _LISTINGS_A_PRODUCT)
    brands = words.brands(_BRANDS, rng)
    home = rng.integers(len(words.departments), size=_BRANDS)  # the department a brand is at home in
    tier = rng.normal(size=_BRANDS)
    series = rng.integers(len(words.surfaces[TYPE["Series"]]), size=(_BRANDS, 3))
    share = 1.0 / (1 + rng.permutation(len(words.entities))) ** 0.35
    entity = np.sort(rng.choice(len(words.entities), size=products, p=share / share.sum())).astype(np.int32)
    values = np.full((products, len(TYPE)), -1, dtype=np.int32)
    values[:, TYPE["Entity"]] = entity
    for number, kind in enumerate(words.entities):
        rows = np.flatnonzero(entity == number)
        own = words.departments[kind.department].values
        for at, choices in own.items():
            popular = 1.0 / (1 + rng.permutation(len(choices))) ** 0.7
            values[rows, at] = rng.choice(choices, size=len(rows), p=popular / popular.sum())
        near = np.where(home == kind.department, 1.0, 0.03) * rng.gamma(0.6, size=_BRANDS)
        values[rows, TYPE["Brand"]] = rng.choice(_BRANDS, size=len(rows), p=near / near.sum())
    brand = values[:, TYPE["Brand"]]
    values[:, TYPE["Series"]] = series[brand, rng.integers(3, size=products)]
    values[:, TYPE["Model"]] = np.arange(products)
    for name, often in _HAS.items():
        values[rng.random(products) >= often, TYPE[name]] = -1
    branded = values[:, TYPE["Brand"]] >= 0
    values[~branded, TYPE["Series"]] = -1
    level = rng.normal(size=products) * 0.8 + np.where(branded, tier[brand] * 0.6, -0.4)
    typical = np.array([kind.price for kind in words.entities])
    price = np.maximum(np.round(typical[entity] * np.exp(0.45 * level)) - 0.01, 0.99)
    values[:, TYPE["Price"]] = np.where(level < -0.6, 0, np.where(level > 0.8, 2, 1))
    latent = _latent(values, [len(surface) for surface in words.surfaces], rng)
    quality = rng.normal(size=products) * 0.6

    # Listings: every product once, some again by other sellers; a seller writes in one language.
    again = rng.choice(products, size=items - products)
    product = np.concatenate([np.arange(products), again]).astype(np.int32)
    product = product[rng.permutation(items)]
    listing = values[product]
    seller_price = price[product] * np.where(rng.random(items) < 0.3, rng.uniform(0.85, 1.15, items), 1.0)
    anchors, ads = words.surfaces[TYPE["Anchor"]], words.surfaces[TYPE["Marketing"]]
    for name, many in (("Anchor", len(anchors)), ("Marketing", len(ads))):
        listing[:, TYPE[name]] = np.where(rng.random(items) < _HAS[name], rng.integers(many, size=items), -1)
    launch = np.where(rng.random(items) < 0.6, 0, rng.integers(0, DAYS, size=items)).astype(np.int32)
    life = np.where(rng.random(items) < 0.9, 10 * DAYS, rng.integers(60, DAYS, size=items))
    kinds = entity[product]
    entities = words.entities
    return Catalogue(
        surfaces=(
            *words.surfaces[: TYPE["Brand"]],
            tuple(brands),
            *words.surfaces[TYPE["Brand"] + 1 : TYPE["Model"]],
            tuple(_model_codes(products, rng)),
            *words.surfaces[TYPE["Model"] + 1 :],
        ),
        product=product,
        entity=kinds,
        group=np.array([kind.group for kind in entities], dtype=np.int32)[kinds],
        department=np.array([kind.department for kind in entities], dtype=np.int32)[kinds],
        language=np.where(rng.random(items) < 0.5, ENGLISH, CHINESE).astype(np.int8),
        values=listing,
        price=np.round(seller_price, 2),
        price_level=level[product].astype(np.float32),
        quality=(quality[product] + rng.normal(size=items) * 0.2).astype(np.float32),
        latent=latent[product],
        launch=launch,
        retire=(launch + life).astype(np.int32),
    )


def _latent(values: np.ndarray, sizes: list[int], rng: np.random.Generator) -> np.ndarray:
    """Each value of a taste-bearing type has a direction; an item's is their sum and a little of its own."""
    total = rng.normal(size=(len(values), LATENT)) * 0.7
    for kind in TASTE_TYPES:
        directions = rng.normal(size=(max(sizes[kind], _BRANDS) + 1, LATENT))
        directions[-1] = 0.0  # of items without such a value
        total += directions[values[:, kind]]
    return (total / np.linalg.norm(total, axis=1, keepdims=True) * np.sqrt(LATENT)).astype(np.float32)


def _model_codes(count: int, rng: np.random.Generator) -> list[Surface]:
    letters = rng.integers(26, size=(count, 2))
    digits = rng.permutation(9000 * ((count // 9000) + 1))[:count] + 1000
    codes = [
        f"{chr(65 + a)}{chr(65 + b)}{number}"
        for (a, b), number in zip(letters.tolist(), digits.tolist(), strict=True)
    ]
    return [((code,), (code,)) for code in codes]
