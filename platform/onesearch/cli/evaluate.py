"""``onesearch evaluate``: a release on held-out searches, beside baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from onesearch.cli._options import Certify
from onesearch.cli._output import RichProgress, err, out, print_json
from onesearch.errors import OneSearchError

if TYPE_CHECKING:
    from onesearch.evaluation.evaluating import Evaluation

SHOWN = ("R@10", "HR@10", "MRR@10", "NDCG@10", "R@100", "R@350")
STAGES = {
    "onesearch": "as served: beams, then the reward",
    "guided": "before the reward",
    "generator": "the network alone, no prior",
    "prior_only": "the prior alone, no network",
    "unpersonalised": "as served, to strangers",
    "before": "the release before, as served",
    "before_guided": "the release before, before its reward",
    "bm25": "bm25s, English stop words",
    "dense": "the same encoder, exact",
    "hybrid": "dense + w·BM25, exact, tuned",
    "popular": "most clicked for the query, BM25 + popularity",
    "cascade": "recall, pre-rank, LightGBM",
}


def evaluate(
    release: Annotated[Path, typer.Option(help="Folder of the release.", show_default=False)],
    queries: Annotated[
        Path, typer.Option(help="Parquet file of searches and what is relevant.", show_default=False)
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="Columns of the file: homedepot, hm, parquet, log.", show_default=False
        ),
    ],
    against: Annotated[
        str, typer.Option(help="Baselines, separated by commas; '' for none.")
    ] = "bm25,dense,hybrid,popular,cascade",
    sample: Annotated[
        int | None, typer.Option(help="Draw so many searches; all without it.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    store: Annotated[
        Path | None,
        typer.Option(
            help="The store that the baselines and the shoppers' histories come from; the release's training "
            "store without it.",
            show_default=False,
        ),
    ] = None,
    states: Annotated[
        str | None,
        typer.Option(
            help="URL of a store of shoppers' states, instead of the histories in the log.",
            show_default=False,
        ),
    ] = None,
    beams: Annotated[
        int | None, typer.Option(help="Beams of a search.", show_default="of the release", min=1)
    ] = None,
    certify: Certify = None,
    before: Annotated[
        Path | None,
        typer.Option(help="Folder of another release, asked the same, to be compared.", show_default=False),
    ] = None,
    ablations: Annotated[
        bool,
        typer.Option(
            "--ablations/--no-ablations",
            help="Run the network alone, the prior alone, and what strangers get, too.",
        ),
    ] = True,
    reports: Annotated[
        Path | None,
        typer.Option(
            help="Where the JSON and the plot go; the release's own reports without it.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Measure a release on held-out queries, beside baselines.

    What is evaluated is what is served: the same graph, precision and beams, one query at a time.
    """
    from onesearch.evaluation.evaluating import evaluate as run
    from onesearch.evaluation.plots import plot
    from onesearch.evaluation.systems import check_names
    from onesearch.releases.release import Release

    names = check_names(against)
    opened = Release.open(release)
    evaluation = run(
        opened,
        queries,
        form,
        names,
        store,
        sample,
        seed,
        RichProgress(),
        states=states,
        beams=beams,
        certify=certify,
        before=None if before is None else Release.open(before),
        ablations=ablations,
    )
    folder = reports if reports is not None else opened.path / "reports"
    stem = f"evaluation-{form}-{queries.stem}"
    answer = evaluation.as_json()
    answer["plot"] = str(plot(evaluation, folder / f"{stem}.png"))
    _write(folder / f"{stem}.json", answer)
    if as_json:
        print_json(answer)
        return
    out.print(figures(evaluation, out.width))
    explained = "; ".join(f"{name}: {STAGES[name]}" for name in evaluation.runs)
    out.print(Text(explained + "\n", style="dim"))
    out.print(differences(evaluation, out.width))
    if evaluation.states is not None:
        out.print(with_history(evaluation))
    out.print(guard_rails(evaluation))
    if evaluation.propensity:
        out.print(weighed(evaluation))
    for note in evaluation.notes:
        out.print(Text(f"note: {note}", style="yellow"))
    err.print(Text(f"written: {folder / stem}.json, {answer['plot']}", style="dim"))


def figures(evaluation: Evaluation, width: int) -> Table:
    """One row a system: metrics with half-widths of their intervals, beams and time of one search."""
    title = f"{evaluation.release} on {evaluation.searches:,} searches of {Path(evaluation.queries).name}"
    names = SHOWN if width >= 102 else tuple(name for name in SHOWN if name not in ("NDCG@10", "R@100"))
    shown = _table(title, [*names, "beams", "p50 ms"])
    best = {name: max(measured[name].value for measured in evaluation.measured.values()) for name in names}
    answer = evaluation.as_json()["systems"]
    for system, measured in evaluation.measured.items():
        cells = []
        for name in names:
            estimate = measured[name]
            cell = Text(_short(estimate.value), style="bold green" if estimate.value == best[name] else "")
            cells.append(cell.append(f" ±{_short((estimate.high - estimate.low) / 2)}", style="dim not bold"))
        beams, p50 = answer[system]["beams"], answer[system]["p50_ms"]
        shown.add_row(system, *cells, "–" if beams is None else str(beams), f"{p50:.1f}")
    return shown


def differences(evaluation: Evaluation, width: int) -> Table:
    """One row a comparison: mean paired differences; green or red where their interval leaves out 0."""
    names = SHOWN[: max(1, min(len(SHOWN), (width - 24) // 22))]
    names = ("R@10", "HR@10", "R@350") if len(names) == 3 else names
    shown = _table("paired differences, 95 % interval", names)
    for comparison in evaluation.comparisons:
        cells = []
        for name in names:
            estimate = comparison.differences[name]
            style = "green" if estimate.low > 0 else "red" if estimate.high < 0 else ""
            cell = Text(_short(estimate.value, "+"), style=style)
            interval = f" [{_short(estimate.low, '+')} {_short(estimate.high, '+')}]"
            cells.append(cell.append(interval, style="dim"))
        shown.add_row(f"{comparison.ours} − {comparison.theirs}", *cells)
    return shown


def guard_rails(evaluation: Evaluation) -> Table:
    """One row a system: how one-sided its first pages are."""
    names = ("sids_2", "brands", "distance", "popularity", "coverage", "gini")
    shown = _table("first pages: different codes and brands, distance, popularity, coverage, Gini", names)
    for system, told in evaluation.guard_rails.items():
        shown.add_row(system, *(_short(told[name]) if name in told else "–" for name in names))
    return shown


def weighed(evaluation: Evaluation) -> Table:
    """One row a system: what the log's propensities say it would have got."""
    told = evaluation.propensity
    title = (
        f"weighed by propensity, {told['searches']:,} logged searches (looks fade by η {told['fade']:.2f})"
    )
    shown = _table(title, ("clicks a search", "orders a search", "clicks a look", "effective sample"))
    for system, own in told["systems"].items():
        cells = [f"{own[name]:.3f} [{own[f'{name}_low']:.3f} {own[f'{name}_high']:.3f}]" for name in _ACTS]
        shown.add_row(system, *cells, f"{own['click_rate']:.3f}", f"{own['effective']:,.0f}")
    return shown


_ACTS = ("clicks", "orders")


def with_history(evaluation: Evaluation) -> Text:
    """A line about the searches whose shopper is known from before."""
    history = evaluation.history
    line = Text(f"\n{history.searches:,} of {evaluation.searches:,} searches are of shoppers with history")
    for comparison in history.comparisons:
        if comparison.theirs != "unpersonalised":
            continue
        gained = comparison.differences["HR@10"]
        own = history.measured["onesearch"]["HR@10"].value
        strangers = history.measured["unpersonalised"]["HR@10"].value
        line.append(f": HR@10 {_short(own)}, to strangers {_short(strangers)}, difference ")
        style = "green" if gained.low > 0 else "red" if gained.high < 0 else ""
        line.append(_short(gained.value, "+"), style=style)
        line.append(f" [{_short(gained.low, '+')} {_short(gained.high, '+')}]", style="dim")
    return line


def _table(title: str, names: Sequence[str]) -> Table:
    made = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    made.add_column("", no_wrap=True)
    for name in names:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def _short(value: float, sign: str = "-") -> str:
    """.437: three digits, no zero before the point."""
    return f"{value:{sign}.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:{sign}.2f}"


def _write(path: Path, answer: dict[str, Any]) -> None:
    draft = path.with_suffix(".tmp")
    try:
        draft.write_text(json.dumps(answer, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OneSearchError(f"{path}: cannot be written ({error})") from error
