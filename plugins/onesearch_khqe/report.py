"""The report after a fit: figures as JSON, a text to read, plots to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from onesearch_khqe.artifacts import write_json
from onesearch_khqe.attributes import ATTRIBUTES
from onesearch_khqe.codebooks import Codebooks
from onesearch_khqe.collisions import Assigned
from onesearch_khqe.config import KhqeConfig
from onesearch_khqe.extractor import KeywordExtractor
from onesearch_khqe.measures import (
    codebook_use,
    collision_sizes,
    distinct_share,
    independent_rate,
    recall_of,
)
from onesearch_khqe.pool import KeywordPool

QUERIES = 1_000
CUTOFFS = (10, 100, 350)


class Fitted(Protocol):
    """What a report is of: a learner whose fit is over."""

    settings: KhqeConfig
    books: Codebooks
    pool: KeywordPool
    extractor: KeywordExtractor
    held_out: pl.DataFrame
    item_entries: list[list[int]]
    aligned: dict[str, Any]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """e° f32[B, D] of queries."""
        ...


def sid_figures(learner: Fitted, vectors: np.ndarray, sids: np.ndarray) -> dict[str, Any]:
    """Figures of one assignment: ``icr_3, icr_5, distinct_share, distortion, collision_sizes``.

    ``icr_3`` counts the residual layers, ``icr_5`` the whole SID.
    """
    books = learner.books
    return {
        "icr_3": independent_rate(sids, len(books.layers)),
        "icr_5": independent_rate(sids),
        "distinct_share": distinct_share(sids),
        "distortion": books.distortion(vectors, sids),
        "collision_sizes": collision_sizes(sids),
    }


def figures_of(
    learner: Fitted,
    vectors: np.ndarray,
    plain: np.ndarray,
    assigned: Assigned,
) -> dict[str, Any]:
    """All figures of a fit, JSON-able.

    ``dense`` and ``sid`` are recall and reciprocal rank on held-out queries over the whole catalogue: items
    ranked by the query's e° with the item's e°, or with the vector that the item's SID stands for.
    """
    books, held_out, entries = learner.books, learner.held_out, learner.item_entries
    levels = books.levels
    pool = learner.pool
    by_type = Counter(pool.types.tolist())
    queries = held_out["query"].unique(maintain_order=True).to_list()
    found = learner.extractor.keywords(queries[: 5 * QUERIES])
    aware = learner.settings.quantiser.collision_aware
    sids = assigned.sids if aware else plain
    return {
        "items": len(vectors),
        "dim": books.dim,
        "levels": list(levels),
        "encoder": learner.settings.encoder,
        "keywords": {
            "pool": len(pool),
            "core": int(pool.core.sum()),
            "by_attribute": {ATTRIBUTES[number]: by_type[number] for number in sorted(by_type)},
            "coverage_items": float(np.mean([bool(row) for row in entries])),
            "coverage_queries": float(np.mean([bool(row) for row in found])) if found else None,
            "per_item": float(np.mean([len(row) for row in entries])),
        },
        "cur": codebook_use(sids, levels),
        "level_distortion": [books.distortion(vectors, plain, depth + 1) for depth in range(len(levels))],
        "used_codes": [len(np.unique(sids[:, level])) for level in range(len(levels))],
        "largest_code": [int(np.bincount(sids[:, level]).max()) for level in range(len(levels))],
        "assignment": "collision-aware" if aware else "plain",
        **sid_figures(learner, vectors, sids),
        "plain": sid_figures(learner, vectors, plain),
        "collision_aware": {
            **sid_figures(learner, vectors, assigned.sids),
            "moved": assigned.moved,
            "distortion_cost": assigned.cost,
        },
        "alignment": learner.aligned,
        **_retrieval(learner, vectors, sids, held_out),
    }


def _retrieval(
    learner: Fitted, vectors: np.ndarray, sids: np.ndarray, held_out: pl.DataFrame
) -> dict[str, Any]:
    rows = (
        held_out.filter(pl.col("weight") > 0).group_by("query", maintain_order=True).agg("item").head(QUERIES)
    )
    if not len(rows):
        return {"held_out_queries": 0, "dense": None, "sid": None}
    queries = learner.embed(rows["query"].to_list())
    positives = [np.array(row) for row in rows["item"].to_list()]
    return {
        "held_out_queries": len(rows),
        "dense": recall_of(queries, vectors, positives, CUTOFFS),
        "sid": recall_of(queries, learner.books.decode(sids), positives, CUTOFFS),
    }


def write_report(figures: dict[str, Any], folder: Path) -> None:
    """Write ``khqe.json``, ``khqe.txt`` and the plots ``khqe.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "khqe.json", figures)
    (folder / "khqe.txt").write_text(report_text(figures), encoding="utf-8")
    plot_report(figures, folder / "khqe.png")


def report_text(figures: dict[str, Any]) -> str:
    """The report for people."""
    words = figures["keywords"]
    coverage = words["coverage_queries"]
    types = ", ".join(f"{name} {count:,}" for name, count in words["by_attribute"].items())
    lines = [
        f"KHQE on {figures['items']:,} items: {figures['encoder']} encoder, {figures['dim']} dimensions",
        f"SID levels           {' · '.join(str(size) for size in figures['levels'])}",
        "",
        f"Keyword pool         {words['pool']:,} keywords, {words['core']:,} of them core",
        f"  cover              {words['coverage_items']:.1%} of the items ({words['per_item']:.1f} each)"
        + (f", {coverage:.1%} of held-out queries" if coverage is not None else ""),
        f"  by attribute       {types or 'none'}",
        "",
        "Codebook use (CUR)   " + "   ".join(f"{name} {share:.3%}" for name, share in figures["cur"].items()),
        "Distortion by level  " + "  ".join(f"{value:.4f}" for value in figures["level_distortion"]),
        "",
        "Assignment           plain      collision-aware" + f"   (in use: {figures['assignment']})",
    ]
    plain, aware = figures["plain"], figures["collision_aware"]
    for label, key, form in (
        ("  ICR, residual codes", "icr_3", "{:.2%}"),
        ("  ICR, whole SID     ", "icr_5", "{:.2%}"),
        ("  SIDs per item      ", "distinct_share", "{:.4f}"),
        ("  distortion         ", "distortion", "{:.5f}"),
    ):
        lines.append(f"{label}{form.format(plain[key]):>9}  {form.format(aware[key]):>10}")
    lines.append(
        f"  moved by it          {aware['moved']:,} items, mean distortion +{aware['distortion_cost']:.6f}"
    )
    sizes = ", ".join(f"{count:,} × {size}" for size, count in list(plain["collision_sizes"].items())[:8])
    lines.append(f"  sharing (plain)      {sizes}")
    if figures.get("dense"):
        lines += ["", f"On {figures['held_out_queries']:,} held-out queries, whole catalogue"]
        for label, key in (("  embedding          ", "dense"), ("  SID                ", "sid")):
            shown = "   ".join(f"{name} {value:.4f}" for name, value in figures[key].items())
            lines.append(f"{label}{shown}")
    if figures.get("seconds"):
        spent = ", ".join(f"{name} {value:.1f}" for name, value in figures["seconds"].items())
        lines += ["", f"Seconds              {spent}"]
    return "\n".join(lines) + "\n"


def plot_report(figures: dict[str, Any], path: Path) -> None:
    """Four plots: codebook use, collisions, distortion by level, alignment."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    blue, orange, grey = "#2563eb", "#ea580c", "#94a3b8"
    with plt.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), constrained_layout=True)
        names = [chr(97 + level) for level in range(len(figures["levels"]))]
        shares = [used / size for used, size in zip(figures["used_codes"], figures["levels"], strict=True)]
        axes[0, 0].bar(names, shares, color=blue)
        for at, (used, size) in enumerate(zip(figures["used_codes"], figures["levels"], strict=True)):
            axes[0, 0].text(at, shares[at] + 0.02, f"{used}\nof {size}", ha="center", fontsize=7)
        axes[0, 0].set(title="Codes in use, by level", ylim=(0, 1.25))
        for offset, key, colour in ((-0.2, "plain", grey), (0.2, "collision_aware", blue)):
            sizes = figures[key]["collision_sizes"]
            kept = {int(size): count for size, count in sizes.items() if int(size) <= 10}
            places = [size + offset for size in kept]
            axes[0, 1].bar(places, list(kept.values()), 0.4, color=colour, label=key.replace("_", "-"))
        axes[0, 1].set(title="SIDs by number of items that share them", yscale="log", xlabel="items")
        axes[0, 1].legend(frameon=False)
        axes[1, 0].plot(names, figures["level_distortion"], marker="o", color=blue)
        axes[1, 0].set(title="Distortion left after each level", ylim=(0, None))
        curve = [entry for entry in figures["alignment"].get("curve", []) if "R@10" in entry]
        passes = [entry["pass"] for entry in curve]
        axes[1, 1].plot(passes, [entry["R@10"] for entry in curve], marker="o", color=blue, label="R@10")
        axes[1, 1].plot(passes, [entry["R@100"] for entry in curve], marker="o", color=orange, label="R@100")
        axes[1, 1].set(
            title="Alignment: held-out queries, sampled catalogue", xlabel="pass", ylim=(0, 1), xticks=passes
        )
        if curve:
            axes[1, 1].legend(frameon=False)
        figure.savefig(path, dpi=120)
        plt.close(figure)
