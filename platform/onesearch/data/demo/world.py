"""A world: words, catalogue, people and how they behave, all from one seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from onesearch.data.demo.behaviour import Behaviour
from onesearch.data.demo.catalogue import Catalogue, make_catalogue
from onesearch.data.demo.needs import Demand
from onesearch.data.demo.people import People, make_people, user_id
from onesearch.data.demo.titles import Listings, write_listings
from onesearch.data.demo.words import Words, load_words

START = datetime(2024, 7, 1, tzinfo=UTC)
"""Day 0 of the logged year."""


@dataclass(frozen=True)
class Size:
    """How large a world is: listings, shoppers, searches and feeds of the year, queries judged."""

    items: int
    shoppers: int
    searches: int
    feeds: int
    judged: int


SIZES = {
    "full": Size(items=24_000, shoppers=4_000, searches=120_000, feeds=40_000, judged=2_500),
    "small": Size(items=3_000, shoppers=800, searches=20_000, feeds=6_000, judged=500),
}

# One stream of random numbers a part, so that a change to one leaves the others as they were.
_CATALOGUE, _TITLES, _PEOPLE, _DEMAND, _TREND = range(5)


@dataclass(frozen=True)
class World:
    """Everything that is true in the simulated shop."""

    size: Size
    seed: int
    words: Words
    catalogue: Catalogue
    listings: Listings
    people: People
    demand: Demand
    behaviour: Behaviour
    user_ids: pl.Series

    @classmethod
    def make(cls, size: Size, seed: int) -> World:
        """Make the world of a seed."""
        words = load_words()
        catalogue = make_catalogue(words, size.items, np.random.default_rng([seed, _CATALOGUE]))
        listings = write_listings(words, catalogue, np.random.default_rng([seed, _TITLES]))
        people = make_people(words, size.shoppers, np.random.default_rng([seed, _PEOPLE]))
        demand = Demand(words, catalogue, people, np.random.default_rng([seed, _DEMAND]))
        behaviour = Behaviour(catalogue, people, np.random.default_rng([seed, _TREND]))
        users = pl.Series([user_id(who) for who in range(size.shoppers)])
        return cls(size, seed, words, catalogue, listings, people, demand, behaviour, users)

    def fingerprint(self) -> str:
        """Changes with any title, truth or taste: tells whether a store was made from this world."""
        digest = hashlib.sha256("\n".join(self.listings.items["title"].to_list()).encode())
        for array in (self.catalogue.values, self.catalogue.latent, self.people.taste):
            # Rounded: other versions of numpy may differ in the last digit.
            digest.update(np.round(array, 3).tobytes() if array.dtype.kind == "f" else array.tobytes())
        return digest.hexdigest()[:32]
