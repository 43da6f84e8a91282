"""From changes to generations that are mapped, over a release of the toy parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onesearch.catalogue.applying import Applier
from onesearch.catalogue.changes import Change
from onesearch.catalogue.generations import Generations, load_generation
from onesearch.errors import ArtifactError, OneSearchError
from onesearch.index import CatalogueIndex, Filters, NodeVectors
from onesearch.live_tree import Items, LiveTree
from onesearch.releases.release import Release

NEW = Change(
    "new",
    title="purple velvet lamp",
    category=("home", "lamp"),
    attributes=(("Brand", "Plum"), ("Color", "purple")),
    price=30.0,
)


def _as_from_scratch(index: CatalogueIndex) -> None:
    scratch = LiveTree.build(
        Items(index.sids, index.vectors, index.popularity, index.alive),
        index.levels,
        index.generation,
        index.guide,
    )
    left = zip(index.live.remainders, scratch.remainders, strict=True)
    for mine, theirs in (
        *zip(index.live.log_mass, scratch.log_mass, strict=True),
        *zip(index.live.vectors, scratch.vectors, strict=True),
        *zip(index.live.tree.code, scratch.tree.code, strict=True),
        (index.live.tree.leaf_items, scratch.tree.leaf_items),
        *(pair for one, other in left for pair in zip(one.arrays, other.arrays, strict=True)),
    ):
        assert np.array_equal(mine, theirs)


def test_an_item_comes_changes_and_goes(applier: Applier, toy_release: Release) -> None:
    came = applier.accept([NEW, Change("i3", "withdraw"), Change("i5", "patch", price=1.5, in_stock=False)])
    assert (came.generation, came.items) == (8, 400)
    assert (came.added, came.changed, came.withdrawn, came.encoded) == (1, 1, 1, 1)
    index = applier.generations.newest().load()  # type: ignore[union-attr]
    assert index.generation == 8 and index.number("new") == 400 and index.number("i3") is None
    assert index.items.row(400, named=True) == {
        "item_id": "new", "title": "purple velvet lamp", "category": ["home", "lamp"], "brand": "Plum",
        "price": 30.0, "in_stock": True,
    }  # fmt: skip
    assert index.items.row(5, named=True)["price"] == 1.5
    assert index.popularity[400] == np.median(toy_release.index.popularity)
    assert index.newcomers is not None and index.newcomers["number"].to_list() == [400]
    assert index.newcomers["attributes"].to_list()[0][1] == {"type": "Color", "value": "purple"}
    _as_from_scratch(index)

    again = applier.accept([NEW, Change("nobody", "withdraw"), Change("nobody else", "patch", price=1.0)])
    assert (again.generation, again.ignored, again.encoded) == (8, 2, 0)
    assert again.refused == (("nobody else", "is patched, and not in the catalogue"),)

    back = applier.accept(
        [Change("i3", title=toy_release.index.items["title"][3]), Change("new", "withdraw")]
    )
    assert (back.added, back.withdrawn, back.encoded, back.items) == (1, 1, 0, 400)
    index = applier.generations.newest().load()  # type: ignore[union-attr]
    assert index.number("i3") == 3 and np.array_equal(index.sids[3], toy_release.index.sids[3])
    _as_from_scratch(index)


def test_a_new_title_is_a_new_place_in_the_tree(applier: Applier, toy_release: Release) -> None:
    told = applier.accept([Change("i3", title="green glass mirror", category=("home", "mirror"))])
    assert (told.added, told.changed, told.encoded) == (0, 1, 1)
    index = applier.index
    assert index.number("i3") == 3 and len(index) == 400
    assert not np.array_equal(index.sids[3], toy_release.index.sids[3])
    assert index.newcomers is not None and index.newcomers["title"].to_list() == ["green glass mirror"]
    _as_from_scratch(index)


def test_another_process_goes_on_and_hears_what_was_missed(
    applier: Applier, toy_release: Release, tmp_path: Path
) -> None:
    applier.accept([NEW])
    applier.log.append([Change("i7", "withdraw")], {"topic:0": 5})  # killed before the generation was made
    other = Applier(tmp_path / "live", toy_release)
    assert other.index.number("new") == 400 and other.index.number("i7") == 7
    told = other.catch_up()
    assert (told.generation, told.withdrawn, other.index.number("i7")) == (9, 1, None)
    assert other.catch_up().generation == 9


def test_what_did_not_change_is_linked_and_old_ones_go(applier: Applier) -> None:
    first = applier.generations.path(applier.accept([NEW]).generation)
    second = applier.generations.path(applier.accept([Change("i1", "patch", price=2.0)]).generation)
    for name in ("arrays.safetensors", "tree.safetensors", "nodes.safetensors", "state.safetensors"):
        assert (first / name).samefile(second / name), name
    assert not (first / "items.parquet").samefile(second / "items.parquet")
    mapped = load_generation(first)
    for price in range(6):
        applier.accept([Change("i1", "patch", price=10.0 + price)])
    assert applier.generations.numbers() == [11, 12, 13, 14, 15] and not first.exists()
    assert mapped.tree_for(Filters(max_price=20.0)).log_mass[0].size  # who has it keeps it
    with pytest.raises(ArtifactError, match="not a catalogue generation"):
        load_generation(first)


@pytest.mark.parametrize("file", ["index.json", "nodes.safetensors", "items.parquet", "state.safetensors"])
def test_a_generation_that_is_not_whole_is_passed_over(applier: Applier, file: str) -> None:
    applier.accept([NEW])
    applier.accept([Change("i1", "withdraw")])
    broken = applier.generations.path(9) / file
    content = broken.read_bytes()
    broken.unlink()  # it may be a link
    broken.write_bytes(content[:-1])
    newest = applier.generations.newest()
    assert newest is not None and newest.number == 8


def test_without_space_nothing_is_left_and_it_is_made_up_for(
    applier: Applier, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("onesearch.catalogue.generations.write_arrays", _full)
        with pytest.raises(OneSearchError, match=r"generation 8 cannot be written: .*No space left"):
            applier.accept([NEW])
    assert [path.name for path in applier.generations.folder.iterdir()] == [".lock"]
    assert applier.catch_up().generation == 8 and applier.index.number("new") == 400


def _full(path: Path, arrays: object) -> None:
    raise OSError(28, "No space left on device")


def test_generations_belong_to_one_release(toy_release: Release, tmp_path: Path) -> None:
    generations = Generations.of_release(tmp_path, toy_release.path)
    assert generations.folder.name.startswith("toy-") and generations.newest() is None
    with pytest.raises(ArtifactError, match="no release"):
        Generations.of_release(tmp_path, tmp_path / "nothing")


def test_everything_is_withdrawn(applier: Applier) -> None:
    told = applier.accept([Change(f"i{number}", "withdraw") for number in range(400)])
    assert told.items == 0 and applier.generations.newest().load().live.tree.leaf_count == 0  # type: ignore[union-attr]
    assert applier.accept([NEW]).items == 1


@pytest.mark.parametrize("nodes", ["codes", "lean"])
def test_a_generation_without_vectors_of_nodes_is_one_when_it_is_opened(
    nodes: NodeVectors, toy_release: Release, tmp_path: Path
) -> None:
    index = CatalogueIndex.load(toy_release.path / "index", nodes)
    opened = Generations(tmp_path / "generations").write(index, 0).load()
    assert opened.live.by_code and len(opened.live.remainders) == len(index.live.remainders)
    assert opened.guide is not None and (opened.guide.books is None) == (nodes == "codes")
    pairs = zip(opened.live.remainders, index.live.remainders, strict=True)
    for mine, theirs in (pair for one, other in pairs for pair in zip(one.arrays, other.arrays, strict=True)):
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    for mine, theirs in zip(opened.live.vectors, index.live.vectors, strict=True):
        assert mine.dtype == np.float16 and np.array_equal(mine, theirs)
