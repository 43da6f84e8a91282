"""What a night tells: a page with plots, and the same as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from onesearch.training.reports import brief

from onesearch_streaming.nightly.plots import days_figure, limits_figure, quality_figure, svg
from onesearch_streaming.nightly.settings import NightlySettings

HTML, TEXT = "report.html", "report.txt"
_ABOUT = {"data": "the day's log", "catalogue": "the catalogue", "challenger": "the challenger"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { padding: .7rem 1rem; border-left: .4rem solid #0b6e4f; background: #f2f8f5; }
.verdict.no { border-color: #b3261e; background: #fbf1f0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #e5e5e5;
  vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ok { color: #0b6e4f; } .no { color: #b3261e; } .hint { color: #a15c00; }
.small { color: #666; font-size: .85rem; } svg { max-width: 100%; height: auto; }
""".strip()


def write_report(folder: Path, about: Mapping[str, Any], settings: NightlySettings) -> None:
    """Write ``report.html`` and ``report.txt``, each in one step.

    Args:
        folder: of the night. about: everything that is known of it. settings: its limits.
    """
    for name, text in ((HTML, html_report(about, settings)), (TEXT, text_report(about, settings))):
        draft = folder / f"{name}.draft"
        draft.write_text(text, encoding="utf-8")
        draft.replace(folder / name)


def headline(about: Mapping[str, Any]) -> str:
    """One sentence: how the night ended."""
    verdict, night = about["verdict"], about["night"]
    champion = about["pinned"]["champion"]
    if about["promoted"]:
        return f"The night of {night} made a better release: '{about['champion']}' follows '{champion}'."
    if verdict["promote"]:
        name = about["challenger"]["name"]
        why = (
            "another release became the champion meanwhile"
            if about.get("overtaken")
            else "as the settings say"
        )
        return f"The night of {night} made '{name}', which passes the gate and was not promoted: {why}."
    if about["challenger"] is None:
        return f"The night of {night} learnt nothing: its data is not fit to learn from. '{champion}' stays."
    return (
        f"The night of {night} made '{about['challenger']['name']}', which was refused. '{champion}' stays."
    )


def text_report(about: Mapping[str, Any], settings: NightlySettings) -> str:
    """The report as plain text."""
    lines = [headline(about), ""]
    if about["simulated"]:
        lines += ["The shoppers of this store are simulated.", ""]
    for reason in about["verdict"]["reasons"]:
        lines.append(f"  refused for {reason}")
    for hint in about["verdict"]["advice"]:
        lines.append(f"  to look at: {hint}")
    lines += ["", "What went in", *(f"  {line}" for line in _learnt(about))]
    lines += ["", "Checks"]
    for check in about["verdict"]["checks"]:
        mark = "ok     " if check["passed"] else "REFUSED" if check["blocking"] else "advice "
        lines.append(
            f"  {mark}  {check['name']:<16} {_value(check):>10}  {_limits(check):<22}  {check['reason']}"
        )
    if about["challenger"]:
        lines += ["", "What was learnt"]
        for stage in about["challenger"]["stages"]:
            lines.append(f"  {stage['stage']:<16} {stage['seconds']:>8.1f} s  {brief(stage['figures'])}")
    lines += ["", "Time", f"  {_times(about)}", ""]
    return "\n".join(lines)


def html_report(about: Mapping[str, Any], settings: NightlySettings) -> str:
    """The report as one page that needs nothing else."""
    verdict, data = about["verdict"], about["data"]
    passed = verdict["promote"]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict["reasons"])
    hints = "".join(f"<li>{escape(hint)}</li>" for hint in verdict["advice"])
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>The night of {escape(about['night'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>The night of {escape(about['night'])}</h1>",
        '<p class="small">The shoppers of this store are simulated.</p>' if about["simulated"] else "",
        f'<div class="verdict{"" if passed else " no"}"><b>{escape(headline(about))}</b>',
        f"<ul>{reasons}</ul>" if reasons else "",
        "</div>",
        f"<p>To look at:</p><ul class='hint'>{hints}</ul>" if hints else "",
        "<h2>What went in</h2><ul>",
        *(f"<li>{escape(line)}</li>" for line in _learnt(about)),
        "</ul>",
        svg(days_figure(data["table"], verdict["checks"], data["skipped"], about["window"]["held_out"][:10])),
        '<p class="small">Dots: days of the log; green: held out, red: left out of what is learnt from. '
        "Shaded: what the checks take for usual on the last day.</p>",
    ]
    for kind, title in _ABOUT.items():
        own = [check for check in verdict["checks"] if check["about"] == kind]
        if own:
            parts += [f"<h2>Checks of {title}</h2>", _check_table(own)]
    parts.append(svg(limits_figure(verdict["checks"])))
    if about["challenger"]:
        parts += ["<h2>What was learnt</h2>", _stage_table(about["challenger"]["stages"])]
    if about["measured"] and about["measured"]["each"]["champion"]:
        gate = settings.gate
        parts += [
            "<h2>Champion and challenger</h2>",
            svg(quality_figure(about["measured"]["each"])),
            '<p class="small">Quality: how high a release puts what was chosen among what was shown, each '
            f"choice counting (1 + place)<sup>{gate.position_fade:g}</sup> times, for it was seen so much "
            "less. Both were asked the same searches, knowing what was known before each.</p>",
        ]
    parts += [f'<p class="small">{escape(_times(about))}</p>', "</body></html>"]
    return "\n".join(part for part in parts if part) + "\n"


def _learnt(about: Mapping[str, Any]) -> list[str]:
    data, window, pinned = about["data"], about["window"], about["pinned"]
    lines = [
        f"champion '{pinned['champion']}' (content {pinned['champion_content'][:12]})",
        *(
            [f"anchor '{pinned['anchor']}': the best release so far"]
            if pinned["anchor"] != pinned["champion"]
            else []
        ),
        f"the log from {window['start'][:10]} to {window['end'][:10]}, {data['events']:,} events"
        + (f", version {pinned['version']} of the Delta log" if pinned["version"] is not None else ""),
        f"held out for the comparison: from {window['held_out'][:10]} on",
        f"{data['catalogue']['items']:,.0f} items, {100 * data['catalogue']['new']:.1f} % of them new "
        "since the "
        "champion",
    ]
    if pinned["catalogue"] is not None:
        told = pinned["catalogue"]
        lines.append(
            f"the store's catalogue with what the live one was told of {told['items']:,} items (up to its "
            f"batch {told['through']})"
        )
    if not data["compared_with"]:
        lines.append("no earlier days to compare the last one with")
    for day in data["skipped"]:
        if day == about["night"]:
            continue
        lines.append(f"left out: {day}, for {'; '.join(data['why_skipped'][day])}")
    return lines


def _check_table(checks: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for check in checks:
        kind = "ok" if check["passed"] else "no" if check["blocking"] else "hint"
        said = {"ok": "passed", "no": "refused", "hint": "advice"}[kind]
        rows.append(
            f'<tr><td>{escape(check["name"])}</td><td class="n">{_value(check)}</td>'
            f'<td class="n">{escape(_limits(check))}</td><td class="{kind}">{said}</td>'
            f"<td>{escape(check['reason'])}</td></tr>"
        )
    head = "<tr><th>check</th><th>figure</th><th>limits</th><th></th><th>in words</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _stage_table(stages: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(stage['stage'])}</td><td class='n'>{stage['seconds']:.1f} s</td>"
        f"<td>{escape(brief(stage['figures']))}</td></tr>"
        for stage in stages
    )
    return f"<table><tr><th>stage</th><th>time</th><th>figures</th></tr>{rows}</table>"


def _value(check: Mapping[str, Any]) -> str:
    return "–" if check["value"] is None else _number(check["value"])


def _limits(check: Mapping[str, Any]) -> str:
    low, high = check["low"], check["high"]
    if low is None and high is None:
        return ""
    if low is None:
        return f"≤ {_number(high)}"
    return f"≥ {_number(low)}" if high is None else f"{_number(low)} … {_number(high)}"


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.4g}"


def _times(about: Mapping[str, Any]) -> str:
    return " · ".join(f"{name} {seconds:.1f} s" for name, seconds in about["seconds"].items())
