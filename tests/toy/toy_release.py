"""Makes a small release of the toy parts, and a folder that makes them importable as an installed plugin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import polars as pl
from onesearch.config import parse_config
from onesearch.contracts.offers import ROLES
from onesearch.index import CatalogueIndex
from onesearch.plugins import GROUP, Plugins, collect
from onesearch.releases.release import Release, write_release
from onesearch.vocabulary import Vocabulary

HERE = Path(__file__).parent
COLOURS = ("red", "blue", "green", "white", "black")
THINGS = ("lamp", "chair", "table", "rug", "shelf", "sofa", "desk", "mirror")
MATERIALS = ("oak", "steel", "glass", "wool", "plastic")


def items(count: int = 400) -> pl.DataFrame:
    """A catalogue of furniture, some of it named in Chinese."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        colour, thing, material = (str(rng.choice(words)) for words in (COLOURS, THINGS, MATERIALS))
        title = f"{colour} {material} {thing} no {number}" if number % 10 else f"红色 台灯 {thing} {number}"
        rows.append(
            {
                "item_id": f"i{number}",
                "title": title,
                "category": ["home", thing],
                "brand": f"Brand{number % 7}" if number % 5 else None,
                "price": None if number % 13 == 0 else round(5 + 200 * float(rng.random()), 2),
                "in_stock": number % 9 != 0,
            }
        )
    schema = {
        "item_id": pl.String, "title": pl.String, "category": pl.List(pl.String),
        "brand": pl.String, "price": pl.Float64, "in_stock": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


@contextmanager
def installed(folder: Path) -> Iterator[Plugins]:
    """The toy as an installed distribution of this process."""
    about = folder / "onesearch_toy-0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: onesearch-toy\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[onesearch]\ntoy = onesearch_toy.plugin\n")
    added = [str(folder), str(HERE)]
    sys.path[:0] = added
    try:
        yield collect(entry_points(group=GROUP))
    finally:
        for path in added:
            sys.path.remove(path)


def environment(folder: Path, serving: Path, site: Path) -> Path:
    """A serving environment with the toy installed (in ``site``), on top of another one; returns its Python.

    Triton's Python backend runs an isolated interpreter, so a PYTHONPATH would not do.
    """
    told = subprocess.run(
        [serving, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    subprocess.run([serving, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "below.pth").write_text(
        f"import site; site.addsitedir({told.stdout.strip()!r})\n{site}\n{HERE}\n"
    )
    return folder / "bin" / "python"


def write(
    releases: Path,
    plugins: Plugins,
    name: str = "toy",
    sleep_ms: float = 0.0,
    serving: str = "beams = 32",
    prefix: tuple[int, int] = (0, 0),
    mark: str = "",
) -> Release:
    """A release of the toy parts over a small catalogue, whose ids begin with ``mark``."""
    from onesearch_toy.servers import LEVELS, codebooks, embed, quantise

    toy = f"sleep_ms = {sleep_ms}\nprefix = {list(prefix)}\n"
    tables = [f'[{role}]\nname = "toy"\n[{role}.toy]\n{toy}' for role in ROLES]
    # Toys rank by similarity alone, and of vectors of 16 numbers two bytes tell too little.
    exact = '[serving]\nnode_vectors = "exact"\n'
    config = parse_config("".join(tables) + f"{exact}{serving}\n", plugins=plugins)
    source = releases / ".source"
    catalogue = items().with_columns(pl.concat_str(pl.lit(mark), pl.col("item_id")).alias("item_id"))
    titles = catalogue["title"].to_list()
    vectors = embed(titles)
    popularity = 1.0 + np.random.default_rng(1).integers(0, 50, len(titles)).astype(np.float32)
    index = CatalogueIndex.build(catalogue, quantise(vectors), vectors, popularity, LEVELS, generation=7)
    index.save(source / "index")
    codebooks().save(source / "index")
    index.fit_guide(codebooks(), seed=0).save_books(source / "index")
    Vocabulary.train(titles, LEVELS, 600).save(source / "vocabulary")
    for role in ROLES:
        (source / role).mkdir(exist_ok=True)
        (source / role / "toy.json").write_text('{"词": 1}', encoding="utf-8")
    return write_release(releases, name, source, config)
