from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from onesearch.codebooks import Codebooks
from onesearch.config import Config, parse_config
from onesearch.contracts.offers import ROLES, Offer
from onesearch.index import CatalogueIndex
from onesearch.plugins import Plugins, Registered
from onesearch.vocabulary import Vocabulary
from pydantic import BaseModel

LEVELS = (4, 4)


class PartConfig(BaseModel):
    size: int = 3


def plugins_of(version: str = "1.2", missing: Sequence[str] = ()) -> Plugins:
    """Four parts of a distribution ``parts``; releases need names and versions of them, not their code."""
    offer = Offer("part", PartConfig, "parts.learners:Part", "parts.servers:Part")
    return Plugins(
        [Registered(role, offer, "parts", "parts", version) for role in ROLES if role not in missing], []
    )


@pytest.fixture
def config() -> Config:
    return parse_config("".join(f'[{role}]\nname = "part"\n' for role in ROLES), plugins=plugins_of())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder that is about to become a release."""
    folder = tmp_path / "source"
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["A", "B", "C"],
            "category": [["x"], [], ["x", "y"]],
            "brand": ["Acme", None, "Acme"],
            "price": [1.0, 2.0, None],
            "in_stock": [True, True, False],
        }
    )
    sids = np.array([[0, 1], [0, 2], [3, 3]])
    index = CatalogueIndex.build(items, sids, np.eye(3, 8), np.ones(3), LEVELS)
    index.save(folder / "index")
    books = Codebooks.of([np.eye(size, 8) for size in LEVELS])
    books.save(folder / "index")
    index.fit_guide(books, seed=0).save_books(folder / "index")
    Vocabulary.train(["a b c", "b c d"], LEVELS, 512).save(folder / "vocabulary")
    for role in ROLES:
        for part in (folder / role, folder / "learners" / role):
            part.mkdir(parents=True)
            (part / "weights.bin").write_bytes(role.encode() * 100)
    (folder / "reports").mkdir()
    (folder / "reports" / "report.json").write_text("{}")
    return folder
