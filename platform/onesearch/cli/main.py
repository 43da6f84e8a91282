"""The command ``onesearch``. Each of its commands is imported when it is called.

Installed parts that the core does not know add commands by entry points of the group ``onesearch.commands``:
a name, and a function or a typer app.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from onesearch._points import points, summary
from onesearch.cli._output import err
from onesearch.errors import OneSearchError


@dataclass(frozen=True)
class Command:
    """Where a command is: a group (``app``) or a function, in a module of ``onesearch.cli``."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "import": Command("import_", "app", "Read a catalogue and logs into a store."),
    "train": Command("train", "train", "Fit every part on a store, stage by stage; ends in a release."),
    "evaluate": Command("evaluate", "evaluate", "Measure a release on held-out queries, beside baselines."),
    "encode": Command("encode", "encode", "Show keywords and semantic ID of texts."),
    "serve": Command("serve", "serve", "Serve a release: Triton and gateway, until interrupted."),
    "search": Command("search", "search", "Search through a running gateway."),
    "simulate": Command("simulate", "simulate", "Let simulated shoppers act at a running gateway."),
    "release": Command("release", "app", "List, show, verify, promote and roll back releases."),
    "state": Command("state", "app", "Build, show and add to what is known of shoppers."),
    "broker": Command("broker", "app", "Run Apache Kafka on this machine."),
    "catalogue": Command("catalogue", "app", "Change the catalogue that is being served."),
    "config": Command("config", "config", "Print the effective configuration with what each key means."),
    "plugins": Command("plugins", "app", "List what is registered, and check it."),
    "doctor": Command("doctor", "doctor", "See what this machine has, and what to install."),
    "bench": Command("bench", "app", "Run benchmarks side by side with peers."),
    "demo": Command("demo", "demo", "From nothing to a search engine, in minutes."),
}

GROUP = "onesearch.commands"

# Which extra brings a module that the base installation does not have.
_EXTRA_OF = {
    **dict.fromkeys(("bm25s", "lightgbm", "matplotlib", "onnx", "pyarrow", "scipy", "torch"), "train"),
    "sentence_transformers": "train",
    "deltalake": "streaming",
    "confluent_kafka": "confluent",
}


class _LazyGroup(TyperGroup):
    """Lists stand-ins that know a name and a summary; only the command that is called is imported."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {
            name: _mounted(name, _stand_in(command.summary)) for name, command in COMMANDS.items()
        } | {name: _mounted(name, _stand_in(summary(point))) for name, point in points(GROUP).items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else None, rest


def _stand_in(summary: str) -> Callable[[], None]:
    def stand_in() -> None:
        """Stand in."""

    stand_in.__doc__ = summary
    return stand_in


def load_command(name: str) -> Any:
    """Import one command. Raises OneSearchError where a part that it needs is not installed."""
    if name not in COMMANDS:
        return _mounted(name, points(GROUP)[name].load())
    command = COMMANDS[name]
    return _mounted(
        name, getattr(importlib.import_module(f"onesearch.cli.{command.module}"), command.attribute)
    )


def _mounted(name: str, command: typer.Typer | Callable[..., Any]) -> Any:
    if not isinstance(command, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(command)
        command = single
    made = typer.main.get_command(command)
    made.name = name
    return made


root = typer.Typer(
    cls=_LazyGroup,
    name="onesearch",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onesearch {version('onesearch')}")
        raise typer.Exit


@root.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Generative e-commerce search: a query goes in, the semantic IDs of items come out.

    Exit status: 0 done, 1 it failed, 2 bad usage or input, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: every failure is a clear line on standard error and an exit status."""
    debug = os.environ.get("ONESEARCH_DEBUG") == "1"
    # OpenMP's threads wait for each other by spinning. Where another process wants a core, too, a small
    # operation then takes ten times as long (1.3 → 15 ms, two threads on two shared cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        root(arguments, prog_name="onesearch")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        err.print(Text.assemble(("error: ", "bold red"), explain(error)), soft_wrap=True)
        sys.exit(error.exit_status if isinstance(error, OneSearchError) else 1)


def explain(error: Exception) -> str:
    """What to tell a person about an exception."""
    match error:
        case OneSearchError():
            return str(error)
        case ModuleNotFoundError(name=str(name)) if (
            extra := _EXTRA_OF.get(name.partition(".")[0])
        ) is not None:
            return f"this needs {name}, which is not installed: pip install 'onesearch[{extra}]'"
        case OSError(strerror=str(reason)):
            return f"{error.filename}: {reason}" if error.filename else reason
        case _:
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return f"unexpected {said} (ONESEARCH_DEBUG=1 shows where)"


if __name__ == "__main__":
    main()
