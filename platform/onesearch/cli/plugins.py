"""``onesearch plugins``: what is registered, from where, and whether it keeps its promises."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.text import Text

from onesearch.cli._output import RichProgress, out, print_json, table
from onesearch.config import load_config
from onesearch.contracts.offers import ROLES, Role
from onesearch.errors import OneSearchError, UsageError
from onesearch.plugins import Plugins, Registered, load_plugins, nearest

app = typer.Typer(no_args_is_help=True, help="List what is registered, and check it.")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_plugins(json: Json = False) -> None:
    """List the components that installed plugins offer, and the plugins that were refused."""
    plugins = load_plugins()
    rows = [
        [entry.role, entry.offer.name, entry.plugin, entry.distribution, entry.version, entry.offer.summary]
        for entry in _in_order(plugins)
    ]
    if json:
        keys = ("role", "name", "plugin", "distribution", "version", "summary")
        print_json(
            {"offers": [dict(zip(keys, row, strict=True)) for row in rows], "refused": _refused(plugins)}
        )
        return
    out.print(
        table("Components", ["role", "name", "plugin", "distribution", "version", "what it does"], rows)
    )
    for refusal in plugins.refused:
        out.print(Text.assemble(("refused ", "bold red"), str(refusal)))


@app.command("check")
def check_plugins(
    name: Annotated[str | None, typer.Argument(help="A component's or plugin's name; none: all.")] = None,
    role: Annotated[str | None, typer.Option(help=f"Only this role: {', '.join(ROLES)}.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Check with these settings, not with the quick ones.")
    ] = None,
    json: Json = False,
) -> None:
    """Run the conformance suite: each component is fitted on a tiny shop and held to its contract.

    Needs what learning needs (the extra 'train'). Exit status 1 where a promise is not kept.
    """
    plugins = load_plugins()
    chosen = _chosen(plugins, name, role)
    settings = load_config(config, plugins).settings if config else {}
    names = load_config(config, plugins).names if config else {}
    progress = RichProgress()
    rows: list[dict[str, Any]] = []
    for entry in chosen:
        picked = names.get(entry.role) == entry.offer.name
        rows += _check(entry, settings[entry.role].model_dump() if picked else None, plugins, progress)
    failed = [row for row in rows if not row["kept"]]
    if json:
        print_json({"checks": rows, "failed": len(failed), "refused": _refused(plugins)})
    else:
        _print(rows, plugins)
    if failed or (plugins.refused and name is None):
        raise OneSearchError(
            f"{len(failed)} of {len(rows)} promises are not kept, {len(plugins.refused)} refused"
        )


def _chosen(plugins: Plugins, name: str | None, role: str | None) -> list[Registered]:
    if role is not None and role not in get_args(Role):
        raise UsageError(f"no role is named '{role}'{nearest(role, ROLES)}; there are: {', '.join(ROLES)}")
    entries = [entry for entry in _in_order(plugins) if role in (None, entry.role)]
    chosen = [entry for entry in entries if name in (None, entry.offer.name, entry.plugin)]
    if not chosen:
        refused = "".join(f"\n  {refusal}" for refusal in plugins.refused if name in (None, refusal.name))
        known = [entry.offer.name for entry in entries]
        raise UsageError(f"no component or plugin is named '{name}'{nearest(name or '', known)}{refused}")
    return chosen


def _check(
    entry: Registered, settings: dict[str, Any] | None, plugins: Plugins, progress: RichProgress
) -> list[dict[str, Any]]:
    # Imported late: it brings the store and the training data's types, which listing does without.
    from onesearch.contracts.conformance import checks

    rows = []
    todo = checks(entry.role, entry.offer.name, settings, plugins)
    with progress.task(f"{entry.role} {entry.offer.name}", len(todo)) as task:
        for check in todo:
            started = time.monotonic()
            try:
                check()
                reason = None
            except Exception as error:  # whatever a stranger's component raises is a promise not kept
                reason = (
                    str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
                )
            rows.append(
                {
                    "role": entry.role,
                    "name": entry.offer.name,
                    "check": check.name,
                    "promise": check.promise,
                    "kept": reason is None,
                    "reason": reason,
                    "seconds": round(time.monotonic() - started, 3),
                }
            )
            task.advance(note=check.name)
    return rows


def _print(rows: list[dict[str, Any]], plugins: Plugins) -> None:
    shown = [
        [
            row["role"],
            row["name"],
            Text("kept", style="green") if row["kept"] else Text("broken", style="bold red"),
            row["promise"] if row["kept"] else f"{row['promise']}\n→ {row['reason']}",
            row["seconds"],
        ]
        for row in rows
    ]
    out.print(table("Conformance", ["role", "name", "", "promise", "s"], shown))
    for refusal in plugins.refused:
        out.print(Text.assemble(("refused ", "bold red"), str(refusal)))


def _in_order(plugins: Plugins) -> list[Registered]:
    return sorted(plugins.registered, key=lambda entry: ROLES.index(entry.role))


def _refused(plugins: Plugins) -> list[dict[str, str]]:
    return [vars(refusal) for refusal in plugins.refused]
