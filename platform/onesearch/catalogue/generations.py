"""Generations of a catalogue: folders that are never changed, each a whole index with its tree ready-made.

.. code-block:: text

    <catalogue>/<release>-<seal>/000000000001/      one generation of one release's index
        items.parquet, arrays.safetensors            as in a release
        tree.safetensors, nodes.safetensors          the tree, its masses; the vectors of its nodes
        state.safetensors, newcomers.parquet         who is alive, keys; what was told of new items
        index.json                                   levels, number, the batch of changes it goes up to

A generation appears in one rename. Whoever serves maps its files, so that all processes share them and none
builds a tree; files that did not change are links to those of the generation before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from onesearch.arrays import map_arrays, write_arrays
from onesearch.errors import ArtifactError, OneSearchError
from onesearch.index import CatalogueIndex, NodeVectors
from onesearch.lean_vectors import CodeGuide, Remainders
from onesearch.live_tree import LiveTree
from onesearch.semantic_ids import PrefixTree

ABOUT = "index.json"
_REMAINDERS = ("parted", "before", "codes")
KEPT = 5
"""Generations that stay: those that models hold, and some that they may be about to open."""


@dataclass(frozen=True)
class Generation:
    """A generation on disk.

    Attributes:
        folder: of this generation. number: it is higher than all before.
        through: number of the last batch of changes that it holds.
    """

    folder: Path
    number: int
    through: int

    def load(self) -> CatalogueIndex:
        """Open it with its tree. Raises ArtifactError where it is not whole, or not there any more."""
        return load_generation(self.folder)


class Generations:
    """The generations of one release's catalogue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_release(cls, catalogue: Path, release: Path) -> Generations:
        """Below a live catalogue, those of a release: its name, and its seal, since names may be used again.

        Raises ArtifactError where the release has no seal.
        """
        try:
            seal = hashlib.sha256((release / "manifest.json").read_bytes()).hexdigest()
        except OSError as error:
            raise ArtifactError(f"{release}: no release ({error.strerror})") from error
        return cls(catalogue / f"{release.resolve().name}-{seal[:12]}")

    def numbers(self) -> list[int]:
        """Numbers of the generations that are there, rising."""
        try:
            return sorted(int(entry.name) for entry in os.scandir(self.folder) if entry.name.isdigit())
        except OSError:
            return []

    def path(self, number: int) -> Path:
        """Folder of a generation."""
        return self.folder / f"{number:012d}"

    def newest(self) -> Generation | None:
        """The newest whole generation; None: there is none."""
        for number in reversed(self.numbers()):
            with suppress(ArtifactError):
                return self.get(number)
        return None

    def get(self, number: int) -> Generation:
        """A generation. Raises ArtifactError where it is not there, or not whole."""
        folder = self.path(number)
        about = _about(folder)
        return Generation(folder, int(about["generation"]), int(about["through"]))

    def write(
        self,
        index: CatalogueIndex,
        through: int,
        before: tuple[Path, CatalogueIndex] | None = None,
    ) -> Generation:
        """Write a generation; it is there whole or not at all.

        Args:
            index: whose number is higher than that of every generation there is.
            through: number of the last batch of changes that it holds.
            before: a folder with an index and what it holds: what both share is linked, not written.

        Raises:
            OneSearchError: it cannot be written; nothing is left behind.
        """
        target, draft = self.path(index.generation), self.folder / f".draft-{os.getpid()}-{index.generation}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            draft.mkdir()
            for name, unchanged, write in _files(index):
                if before is None or not unchanged(before[1]) or not _link(before[0] / name, draft / name):
                    write(draft / name)
            about = {
                "levels": list(index.levels),
                "generation": index.generation,
                "through": through,
                "live": index.live_count,
                "guided": _guided(index),
                "files": {path.name: path.stat().st_size for path in draft.iterdir()},
            }
            (draft / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            draft.rename(target)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise OneSearchError(f"generation {index.generation} cannot be written: {error}") from error
        return Generation(target, index.generation, through)

    def prune(self, keep: int = KEPT) -> list[int]:
        """Remove all but the newest. Whoever has one mapped keeps it."""
        old = self.numbers()[:-keep]
        for number in old:
            shutil.rmtree(self.path(number), ignore_errors=True)
        return old

    def _sweep(self) -> None:
        """Remove drafts of processes that are gone."""
        for draft in self.folder.glob(".draft-*"):
            process = draft.name.split("-")[1]
            if process == str(os.getpid()) or not Path(f"/proc/{process}").exists():
                shutil.rmtree(draft, ignore_errors=True)


def load_generation(folder: Path) -> CatalogueIndex:
    """Open a generation with its tree. Raises ArtifactError naming what does not fit."""
    about = _about(folder)
    try:
        arrays = map_arrays(folder / "arrays.safetensors")
        state = map_arrays(folder / "state.safetensors")
        nodes = map_arrays(folder / "nodes.safetensors")
        levels = range(len(about["levels"]))
        guide = _guide(about.get("guided", "codes" if about.get("by_code") else "exact"), nodes, levels)
        newcomers = folder / "newcomers.parquet"
        index = CatalogueIndex(
            pl.read_parquet(folder / "items.parquet"),
            arrays["sids"],
            arrays["vectors"],
            arrays["popularity"],
            tuple(about["levels"]),
            int(about["generation"]),
            state.get("alive"),
            pl.read_parquet(newcomers) if newcomers.exists() else None,
            guide,
        )
        index.__dict__["keys"] = (state["keys"], state["numbers"])
        index.__dict__["live"] = _read_tree(folder, index, nodes)
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{folder}: not a catalogue generation ({error})") from error
    return index


def _about(folder: Path) -> dict:
    """What a generation says of itself. Raises ArtifactError where a file is missing or cut short."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        for name, size in about["files"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{name} has not {size} bytes")
        return {**about, "generation": int(about["generation"]), "through": int(about["through"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder}: not a catalogue generation ({error})") from error


Unchanged = Callable[[CatalogueIndex], bool]
Write = Callable[[Path], None]


def _files(index: CatalogueIndex) -> list[tuple[str, Unchanged, Write]]:
    """Each file: its name, whether another index has the same in it, and how it is written."""
    live, tree = index.live, index.live.tree
    arrays = {"sids": index.sids, "vectors": index.vectors, "popularity": index.popularity}
    state = {"keys": index.keys[0], "numbers": index.keys[1]}
    if index.alive is not None:
        state["alive"] = index.alive
    walked = {"leaf_first_item": tree.leaf_first_item, "leaf_items": tree.leaf_items}
    for level in range(tree.depth):
        walked[f"first_child.{level}"], walked[f"code.{level}"] = tree.first_child[level], tree.code[level]
        walked[f"log_mass.{level}"] = live.log_mass[level]

    def same_arrays(other: CatalogueIndex) -> bool:
        return all(getattr(index, name) is getattr(other, name) for name in arrays)

    def same_tree(other: CatalogueIndex) -> bool:
        theirs = other.live
        return tree is theirs.tree and live.log_mass is theirs.log_mass

    def same_state(other: CatalogueIndex) -> bool:
        return index.keys is other.keys and index.alive is other.alive

    def writes(arrays: dict[str, np.ndarray]) -> Write:
        return lambda path: write_arrays(path, arrays)

    files: list[tuple[str, Unchanged, Write]] = [
        ("items.parquet", lambda other: index.items is other.items, index.items.write_parquet),
        ("arrays.safetensors", same_arrays, writes(arrays)),
        ("state.safetensors", same_state, writes(state)),
        ("tree.safetensors", same_tree, writes(walked)),
        # Remainders come anew only along with the vectors of the first level.
        ("nodes.safetensors", lambda other: live.vectors is other.live.vectors, writes(_nodes(index))),
    ]
    if (newcomers := index.newcomers) is not None:
        files.append(
            ("newcomers.parquet", lambda other: newcomers is other.newcomers, newcomers.write_parquet)
        )
    return files


def _read_tree(folder: Path, index: CatalogueIndex, nodes: Mapping[str, np.ndarray]) -> LiveTree:
    walked, depth = map_arrays(folder / "tree.safetensors"), len(index.levels)

    def each(name: str) -> tuple[np.ndarray, ...]:
        return tuple(walked[f"{name}.{level}"] for level in range(depth))

    tree = PrefixTree(
        index.levels,
        each("first_child"),
        each("code"),
        walked["leaf_first_item"],
        walked["leaf_items"],
    )
    vectors, left = tuple(nodes[f"vectors.{level}"] for level in range(depth)), tuple[Remainders, ...]()
    if index.guide is not None and index.guide.books is not None:
        left = tuple(
            Remainders(book, *(nodes[f"{name}.{level}"] for name in _REMAINDERS))
            for level, book in enumerate(index.guide.books, start=1)
        )
    return LiveTree(tree, each("log_mass"), vectors, index.generation, guide=index.guide, remainders=left)


def _guided(index: CatalogueIndex) -> NodeVectors:
    if index.guide is None:
        return "exact"
    return "codes" if index.guide.books is None else "lean"


def _nodes(index: CatalogueIndex) -> dict[str, np.ndarray]:
    """What guides searches, with what codes and bytes stand for: a generation needs nothing else."""
    live = index.live
    arrays = {f"vectors.{level}": array for level, array in enumerate(live.vectors)}
    for level, left in enumerate(live.remainders, start=1):
        arrays[f"book.{level}"] = left.book
        arrays |= {f"{name}.{level}": getattr(left, name) for name in _REMAINDERS}
    if index.guide is not None and index.guide.books is not None:
        arrays["centroids.0"] = index.guide.centroids[0]
    return arrays


def _guide(guided: NodeVectors, nodes: Mapping[str, np.ndarray], levels: range) -> CodeGuide | None:
    if guided == "exact":
        return None
    centroids = tuple(nodes[f"vectors.{level}"] for level in levels)
    if guided == "codes":
        return CodeGuide(centroids)
    books = tuple(nodes[f"book.{level}"] for level in levels[1:] if f"book.{level}" in nodes)
    return CodeGuide((nodes["centroids.0"], *centroids[1:]), books)


def _link(source: Path, target: Path) -> bool:
    """Link a file where the file system can; whether it could, and the file is there."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True
