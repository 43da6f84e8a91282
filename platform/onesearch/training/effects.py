"""What each stage did for quality, in one table: the end of a training, and one of the release's reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from onesearch.contracts.generator import Phase, Stage
from onesearch.training.judging import NAMES
from onesearch.training.reports import StageReport

COLUMNS = ("stage", "R@10", "NDCG@10", "change", "nats", "KL", "reward", "")
"""``change`` of NDCG@10 since the row before, with two standard errors; ``nats`` a held-out path; ``KL`` from
the supervised generator, nats a prompt; ``reward``, mean of the first ten."""


def effects(stages: Sequence[StageReport]) -> list[dict[str, Any]]:
    """A row for the prior alone, each stage of the generator (or the generator as it was, where a release is
    continued without one), the reward, and each phase of preferences.

    Returns:
        JSON objects: stage, seconds; ``HR@10``, ``R@10`` and ``NDCG@10`` of the same held-out searches in the
        generator's order (of the reward: NDCG@10 as it tells itself, cross-validated over its lists),
        ``change`` and ``error`` of NDCG@10 since the row before, ``held_out_nll``, ``kl``, ``reward``,
        ``note``; None where a stage does not tell.
    """
    told = {report.stage: report for report in stages}
    rows = []
    lists = told["lists"].figures if "lists" in told else {}
    if lists.get("prior_only"):
        rows.append(_row("prior alone", 0.0, {"searches": lists["prior_only"]}))
    supervised = [name for name in get_args(Stage) if name in told]
    for name in supervised:
        report = told[name]
        # The last of them is what the lists were made by.
        searched = lists if name == supervised[-1] else report.figures
        figures = report.figures | {key: searched[key] for key in ("searches", "change") if key in searched}
        rows.append(_row(name, report.seconds, figures))
    if not supervised and lists:
        rows.append(_row("as it was", 0.0, {"searches": lists.get("searches", {})}))
    for later in ("reward", *get_args(Phase), "reward_again"):
        if later in told:
            report = told[later]
            made = _reward if later.startswith("reward") else _row
            rows.append(made(later, report.seconds, report.figures))
    return rows


def printed(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The rows as the table :data:`COLUMNS` shows them."""
    shown = []
    for row in rows:
        change = None if row["change"] is None else f"{row['change']:+.4f} ± {2 * row['error']:.4f}"
        cells = [row["stage"].replace("_", " "), row["R@10"], row["NDCG@10"], change, row["held_out_nll"]]
        shown.append([*cells, row["kl"], row["reward"], row["note"]])
    return shown


def _row(stage: str, seconds: float, figures: Mapping[str, Any]) -> dict[str, Any]:
    searched, change = figures.get("searches", {}), figures.get("change", {}).get("NDCG@10", {})
    return {
        "stage": stage,
        "seconds": seconds,
        **{name: searched.get(name) for name in NAMES},
        "change": change.get("change"),
        "error": change.get("error"),
        "held_out_nll": figures.get("held_out_nll"),
        "kl": figures.get("kl_origin", figures.get("kl")),
        "reward": figures.get("reward", {}).get("after"),
        "note": _note(figures),
    }


def _reward(stage: str, seconds: float, figures: Mapping[str, Any]) -> dict[str, Any]:
    row = _row(stage, seconds, {})
    row["NDCG@10"] = figures.get("ndcg_10", {}).get("reward")
    return row | {"note": "reranks, cross-validated"}


def _note(figures: Mapping[str, Any]) -> str:
    if "skipped" in figures:
        return f"passed over: {figures['skipped']}"
    if figures.get("reward_hacking"):
        hacked = "reward hacking: the reward rose, held-out searches are worse"
        return hacked + ("; kept" if figures["kept"] else "; weights before kept")
    if figures.get("worse"):
        return "worse; kept" if figures["kept"] else "worse; weights before kept"
    return ""
