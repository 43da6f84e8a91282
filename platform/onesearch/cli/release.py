"""``onesearch release``: releases listed, verified, promoted, rolled back, compared, pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from onesearch.cli._output import out, print_json, table
from onesearch.contracts.offers import ROLES
from onesearch.errors import UsageError
from onesearch.releases.manifest import Manifest
from onesearch.releases.pruning import pin as pin_release
from onesearch.releases.pruning import prune as prune_releases
from onesearch.releases.registry import Registry, find_release
from onesearch.releases.release import Release
from onesearch.serving.client import await_release

app = typer.Typer(no_args_is_help=True, help="List, verify, promote, roll back, compare and prune releases.")

Releases = Annotated[Path, typer.Option("--releases", help="Folder of releases.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Wait = Annotated[
    list[str] | None,
    typer.Option(help="HOST:PORT of a gateway: return once it answers with the release; repeatable."),
]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the gateways.", min=0)]
RELEASES = Path("releases")
_SIDE = ("shoppers", "searches", "outcomes")


@app.command("list")
def list_releases(releases: Releases = RELEASES, as_json: Json = False) -> None:
    """List all releases, the newest first; * marks the champion, ? the challenger."""
    entries = Registry(releases).listing()
    if as_json:
        print_json(
            {
                "champion": next((entry.name for entry in entries if entry.champion), None),
                "challenger": next((entry.name for entry in entries if entry.challenger), None),
                "releases": [
                    {
                        "name": entry.name,
                        "champion": entry.champion,
                        "challenger": entry.challenger,
                        "served": entry.served,
                        "problem": entry.problem or None,
                    }
                    | (_about(entry.manifest) if entry.manifest else {})
                    for entry in entries
                ],
            }
        )
        return
    rows: list[list[object]] = []
    for entry in entries:
        mark = Text("*" if entry.champion else "?" if entry.challenger else "", style="bold green")
        served = "yes" if entry.served else ""
        if entry.manifest is None:
            rows.append([mark, entry.name, None, None, None, served, Text(entry.problem, style="red")])
            continue
        parts = " · ".join(entry.manifest.components[role].component for role in ROLES)
        created = f"{entry.manifest.created:%Y-%m-%d %H:%M}"
        size = _megabytes(entry.manifest)
        rows.append([mark, entry.name, created, _items(entry.manifest), size, served, parts])
    columns = (
        "",
        "release",
        "created (UTC)",
        "items",
        "MB",
        "served",
        "tokenizer · user encoder · generator · reward",
    )
    out.print(table(f"releases in {releases}", columns, rows) if rows else f"no releases in {releases}")


@app.command()
def show(release: str, releases: Releases = RELEASES, as_json: Json = False) -> None:
    """Show a release's components, figures and files. RELEASE is a name or a folder."""
    folder = _folder(release, releases)
    manifest = Manifest.read(folder)
    if as_json:
        print_json(manifest.model_dump(mode="json") | {"path": folder, "content": manifest.content_hash()})
        return
    out.print(f"[bold]{manifest.name}[/bold]  {folder}", highlight=False)
    out.print(
        f"created {manifest.created:%Y-%m-%d %H:%M} UTC · onesearch {manifest.onesearch} · "
        f"{_megabytes(manifest):.1f} MB · content {manifest.content_hash()[:12]} · "
        f"store {manifest.store[:12]}\n"
    )
    components = [
        [role.replace("_", " "), entry.component, entry.distribution, entry.version]
        for role, entry in manifest.components.items()
    ]
    out.print(table("components", ("role", "component", "distribution", "version"), components))
    from onesearch.training.run import brief

    figures = [[stage, brief(values)] for stage, values in manifest.metrics.items()]
    if figures:
        out.print()
        out.print(table("figures of training", ("stage", "figures"), figures))
    sizes: dict[str, int] = {}
    for path, file in manifest.files.items():
        part = "/".join(path.split("/")[: 2 if path.startswith("learners/") else 1])
        sizes[part] = sizes.get(part, 0) + file.size
    files = [[part, round(size / 1e6, 2)] for part, size in sorted(sizes.items())]
    out.print()
    out.print(table("files", ("part", "MB"), files))


@app.command()
def verify(release: str, releases: Releases = RELEASES, as_json: Json = False) -> None:
    """Read every byte of a release, and look whether its plugins are installed."""
    opened = Release.open(_folder(release, releases))
    opened.require_plugins()
    answer = {
        "name": opened.name,
        "path": opened.path,
        "files": len(opened.manifest.files),
        "content": opened.manifest.content_hash(),
        "valid": True,
    }
    if as_json:
        print_json(answer)
    else:
        out.print(f"{opened.name}: {answer['files']} files as they were written, all plugins are installed")


@app.command()
def promote(
    name: str,
    releases: Releases = RELEASES,
    wait: Wait = None,
    timeout: Timeout = 120.0,
    as_json: Json = False,
) -> None:
    """Make a release the champion, after verifying it."""
    registry = Registry(releases)
    registry.promote(name)
    await_release(wait or (), name, timeout)
    _tell(registry, as_json)


@app.command()
def rollback(
    releases: Releases = RELEASES,
    wait: Wait = None,
    timeout: Timeout = 120.0,
    as_json: Json = False,
) -> None:
    """Make the previous champion the champion again, after verifying it."""
    registry = Registry(releases)
    await_release(wait or (), registry.rollback().name, timeout)
    _tell(registry, as_json)


@app.command()
def challenge(
    name: Annotated[str | None, typer.Argument(help="The challenger.", show_default=False)] = None,
    share: Annotated[float, typer.Option(help="Its share of the shoppers, between 0 and 1.")] = 0.05,
    end: Annotated[bool, typer.Option("--end", help="Send everybody to the champion again.")] = False,
    releases: Releases = RELEASES,
    as_json: Json = False,
) -> None:
    """Let a release answer a share of the shoppers, always the same ones, beside the champion."""
    registry = Registry(releases)
    if (name is None) != end:
        raise UsageError("name a challenger, or give --end")
    if name is None:
        ended = registry.end_challenge()
        if as_json:
            print_json({"challenger": None, "ended": ended})
        else:
            out.print(f"{ended} answers nobody any more" if ended else "there was no challenger")
        return
    challenger = registry.challenge(name, share)
    if as_json:
        print_json(
            {"challenger": challenger.name, "share": challenger.share, "since": challenger.since.isoformat()}
        )
    else:
        out.print(f"{challenger.name} answers {challenger.share:.1%} of the shoppers")


@app.command()
def compare(
    log: Annotated[
        Path,
        typer.Option(
            help="Interactions: a Delta table, a Parquet file, or a folder of them.", show_default=False
        ),
    ],
    champion: Annotated[str | None, typer.Option(help="By name.", show_default="that of --releases")] = None,
    challenger: Annotated[
        str | None, typer.Option(help="By name.", show_default="that of --releases")
    ] = None,
    metric: Annotated[str, typer.Option(help="orders or clicks, per search.")] = "orders",
    expected: Annotated[
        float, typer.Option(help="Relative difference that is looked for; 0.05 is 5 %.", min=0.001, max=1)
    ] = 0.05,
    alpha: Annotated[
        float, typer.Option(help="Share of wrong verdicts where there is no difference.", min=1e-6, max=0.5)
    ] = 0.05,
    releases: Releases = RELEASES,
    as_json: Json = False,
) -> None:
    """Compare champion and challenger by a log; may be asked at any time, as often as one likes."""
    registry = Registry(releases)
    named = registry.challenger()
    champion = champion or registry.champion()
    challenger = challenger or (named.name if named else None)
    if champion is None or challenger is None:
        raise UsageError(f"{releases} names no champion or no challenger; name --champion and --challenger")
    from onesearch.releases.comparing import compare as compare_releases
    from onesearch.releases.comparing import read_log

    done = compare_releases(read_log(log), champion, challenger, metric, expected, alpha)
    if as_json:
        print_json(done.as_json())
        return
    rows = [
        [name, side.shoppers, side.searches, side.outcomes, round(side.rate, 5)]
        for name, side in ((champion, done.look.champion), (challenger, done.look.challenger))
    ]
    out.print(table(f"since {done.since:%Y-%m-%d %H:%M} UTC", ("release", *_SIDE, f"{metric}/search"), rows))
    lift, low, high = done.lift
    out.print(f"\n{metric} per search {lift:+.2f} % (always-valid interval {low:+.2f} to {high:+.2f} %)")
    said = {"open": "neither better nor worse yet"}.get(done.verdict, done.verdict)
    after = f", decided after {done.decided_after:,} searches" if done.decided_after else ""
    out.print(f"{challenger} is {said} (p = {done.look.p:.4f}, always valid{after})")


@app.command()
def pin(
    name: str,
    off: Annotated[bool, typer.Option("--off", help="Let it be pruned again.")] = False,
    releases: Releases = RELEASES,
    as_json: Json = False,
) -> None:
    """Keep a release whatever is pruned."""
    names = pin_release(Registry(releases), name, not off)
    if as_json:
        print_json({"pinned": names})
    else:
        out.print(f"pinned: {', '.join(names) or 'none'}")


@app.command()
def prune(
    keep: Annotated[int, typer.Option(help="So many of the newest others are kept.", min=0)] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    releases: Releases = RELEASES,
    as_json: Json = False,
) -> None:
    """Remove old releases: never champion, previous champion, challenger, pinned ones, or what serves."""
    done = prune_releases(Registry(releases), keep, dry_run)
    if as_json:
        print_json({"removed": done.removed, "kept": done.kept, "freed": done.freed, "dry_run": dry_run})
        return
    verb = "would be removed" if dry_run else "removed"
    rows = [[name, verb] for name in done.removed] + [[name, why] for name, why in done.kept.items()]
    out.print(table(f"{done.freed / 1e6:,.1f} MB freed", ("release", ""), rows))


def _tell(registry: Registry, as_json: bool) -> None:
    history = registry.history()
    if as_json:
        print_json(
            {
                "champion": registry.champion(),
                "history": [change.model_dump(mode="json") for change in history],
            }
        )
        return
    rows = [[f"{change.at:%Y-%m-%d %H:%M:%S}", change.how, change.name] for change in history[-10:]]
    out.print(f"champion: [bold green]{registry.champion()}[/bold green]\n")
    out.print(table("changes of champion", ("when (UTC)", "how", "release"), rows))


def _folder(release: str, releases: Path) -> Path:
    """The folder of a release given by name, or by path."""
    registry = Registry(releases)
    return registry.path(release) if release in registry.names() else find_release(release)


def _about(manifest: Manifest) -> dict[str, Any]:
    return {
        "created": manifest.created.isoformat(),
        "items": _items(manifest),
        "mb": _megabytes(manifest),
        "content": manifest.content_hash(),
        "components": {role: entry.component for role, entry in manifest.components.items()},
    }


def _items(manifest: Manifest) -> int | None:
    items = manifest.metrics.get("index", {}).get("items")
    return items if isinstance(items, int) else None


def _megabytes(manifest: Manifest) -> float:
    return round(sum(file.size for file in manifest.files.values()) / 1e6, 1)
