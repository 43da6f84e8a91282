"""``onesearch ingest``: Kafka into the log, the shoppers' states and the catalogue."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from onesearch.catalogue.changes import read_changes
from onesearch.catalogue.log import ChangeLog
from onesearch.cli._output import err, out, print_json
from onesearch.config import load_config
from onesearch.errors import OneSearchError, UsageError
from onesearch.events.messages import CatalogueEvent, key_of, new_event_id, now_us, write_change
from onesearch.kafka.contract import Client, Record
from onesearch.kafka.opening import connect, settings
from onesearch.shoppers.opening import FORMS, open_states
from rich.text import Text

from onesearch_streaming.ingest.consumer import Ingest
from onesearch_streaming.ingest.delta_log import DeltaLog
from onesearch_streaming.ingest.letters import read_letters, set_handled, waiting
from onesearch_streaming.ingest.metrics import Metrics
from onesearch_streaming.ingest.settings import IngestSettings
from onesearch_streaming.ingest.sinks import CatalogueSink, LogSink, StateSink

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Read Kafka into log, states and catalogue."
)
letters_app = typer.Typer(no_args_is_help=True, add_completion=False, help="Messages that could not be read.")
app.add_typer(letters_app, name="dlq")

Kafka = Annotated[
    str | None, typer.Option("--kafka", help="Bootstrap servers.", show_default="of the configuration")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A configuration; its [kafka] and [ingest] are used.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Limit = Annotated[int, typer.Option(help="So many at most.", min=1)]
_SHOWN = 60
_PORTION = 1_000


@app.command()
def run(
    kafka: Kafka = None,
    log: Annotated[Path | None, typer.Option(help="Folder of the log (Delta Lake).")] = None,
    states: Annotated[str | None, typer.Option(help=f"The shoppers' states: {FORMS}.")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="Folder of the live catalogue.")] = None,
    config: ConfigFile = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Where Prometheus asks (loopback).", min=1, max=65535)
    ] = None,
    until_idle: Annotated[
        float | None, typer.Option(help="End when nothing has come for so many seconds.", min=0)
    ] = None,
    json: Json = False,
) -> None:
    """Read until interrupted (SIGINT, SIGTERM): what was read is written, then the group is left."""
    client, chosen = _connected(kafka, config)
    complaints = logging.StreamHandler(sys.stderr)
    complaints.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("onesearch").addHandler(complaints)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        metrics = Metrics()
        ingest = Ingest(
            client,
            chosen,
            log=_log_sink(log, chosen) if log else None,
            states=StateSink(stack.enter_context(open_states(states))) if states else None,
            catalogue=CatalogueSink(ChangeLog(catalogue)) if catalogue else None,
            metrics=metrics,
        )
        if metrics_port is not None:
            metrics.serve(metrics_port)
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: ingest.stop())
        if not json:
            err.print(f"reading from {client.settings.servers} …")
        done = asdict(ingest.run(until_idle))
    if json:
        print_json(done)
        return
    written = ", ".join(f"{count:,} into {name}" for name, count in done["written"].items())
    told = f"{done['repeated']:,} repeated, {done['refused']:,} refused"
    out.print(f"read {done['read']:,} messages: {written}; {told}")


@app.command()
def send(
    changes: Annotated[
        Path, typer.Argument(help="Changes of the catalogue, as 'onesearch catalogue' reads them.")
    ],
    kafka: Kafka = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Send changes of the catalogue to their topic. All are read before the first is sent."""
    client, _ = _connected(kafka, config)
    now = now_us()
    events = [CatalogueEvent(new_event_id(), now, change) for change in read_changes(changes)]
    records = [Record(client.settings.catalogue, key_of(one), write_change(one)) for one in events]
    with client.producer() as producer:
        for at in range(0, len(records), _PORTION):
            failures = producer.deliver(records[at : at + _PORTION], client.settings.delivery_timeout_s)
            failed = [failure for failure in failures if failure is not None]
            if failed:
                sent = at + len(failures) - len(failed)
                raise OneSearchError(
                    f"{sent:,} of {len(records):,} changes were sent, then: {failed[0].reason}; sending all "
                    "of them again does no harm"
                )
    _tell(json, {"sent": len(records)})


@app.command()
def compact(
    log: Annotated[Path, typer.Option(help="Folder of the log.", show_default=False)],
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Put the log's small files together, and remove those that nothing needs any more.

    Files of pinned versions stay. The consumer does this by itself now and then.
    """
    if not log.is_dir():
        raise UsageError(f"{log}: there is no log")
    chosen = load_config(config).section("ingest", IngestSettings)
    opened = DeltaLog(log)
    done = opened.compact(chosen.file_mb) | {"vacuumed": len(opened.vacuum(chosen.keep_hours))}
    if json:
        print_json(done | {"version": opened.version})
    else:
        out.print(
            f"{done['removed']:,} files became {done['added']:,}; {done['vacuumed']:,} old ones removed"
        )


@letters_app.command()
def show(kafka: Kafka = None, limit: Limit = 20, config: ConfigFile = None, json: Json = False) -> None:
    """Show the letters that wait, the oldest first."""
    client, _ = _connected(kafka, config)
    letters = list(read_letters(client, limit))
    count = waiting(client)
    if json:
        shown = [
            asdict(replace(letter, key=None, value=b""))
            | {"key": (letter.key or b"").decode("utf-8", "replace"), "value": letter.value[:1_000].hex()}
            for letter in letters
        ]
        print_json({"waiting": count, "letters": shown})
        return
    out.print(f"{count:,} letters wait (those written twice counted twice)")
    for letter in letters:
        when = f"{datetime.fromtimestamp(letter.time / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        whence = f"{letter.topic}[{letter.partition}]@{letter.offset}"
        head = f"{letter.at}  {when}  {whence}, {letter.length:,} bytes: "
        begins = Text(f"   {letter.value[:_SHOWN]!r}", style="dim")
        out.print(Text.assemble((head, "bold"), letter.reason), begins, sep="\n", soft_wrap=True)


@letters_app.command()
def replay(
    kafka: Kafka = None, limit: Limit = 1_000_000, config: ConfigFile = None, json: Json = False
) -> None:
    """Send letters to the topics that they came from once more, after what refused them has been mended.

    Events that had been read after all are known by their ids. One that was cut cannot be replayed: it is
    still in its own topic, at the offset that the letter names.
    """
    client, _ = _connected(kafka, config)
    topics = (client.settings.interactions, client.settings.catalogue)
    sent = cut = 0
    with client.producer() as producer:
        for letter in read_letters(client, limit):
            if letter.topic not in topics or not letter.whole:
                cut += 1
            else:
                record = Record(letter.topic, letter.key, letter.value)
                (failure,) = producer.deliver([record], client.settings.delivery_timeout_s)
                if failure is not None:
                    raise OneSearchError(f"letter {letter.at} cannot be replayed: {failure.reason}")
                sent += 1
            set_handled(client, letter.at + 1)
    _tell(json, {"replayed": sent, "left_out": cut, "waiting": waiting(client)})


@letters_app.command()
def drop(
    kafka: Kafka = None, limit: Limit = 1_000_000, config: ConfigFile = None, json: Json = False
) -> None:
    """Throw letters away: they are not shown, counted or replayed any more; the topic keeps them 30 days."""
    client, _ = _connected(kafka, config)
    letters = list(read_letters(client, limit))
    if letters:
        set_handled(client, letters[-1].at + 1)
    _tell(json, {"dropped": len(letters), "waiting": waiting(client)})


def _log_sink(log: Path, chosen: IngestSettings) -> LogSink:
    return LogSink(DeltaLog(log), chosen.log_events, chosen.log_every_s)


def _connected(kafka: str | None, config: Path | None) -> tuple[Client, IngestSettings]:
    return connect(settings(kafka, config)), load_config(config).section("ingest", IngestSettings)


def _tell(json: bool, done: dict[str, int]) -> None:
    if json:
        print_json(done)
    else:
        out.print(", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in done.items()))
