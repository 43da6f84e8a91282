"""``onesearch bench``: benchmarks side by side with peers.

A benchmark is a function named by an entry point of the group ``onesearch.benchmarks``. It returns a
dictionary, of which ``rows`` is shown as a table. Its parameters become options, its docstring their help.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from rich.text import Text
from typer.core import TyperGroup

from onesearch._points import points, summary
from onesearch.cli._output import RichProgress, out, print_json, table
from onesearch.errors import OneSearchError
from onesearch.progress import Progress

GROUP = "onesearch.benchmarks"
_ARGUMENT = re.compile(r"^ {8}(\w+): (.*(?:\n {9,}.*)*)", re.MULTILINE)


class _Benchmarks(TyperGroup):
    """Benchmarks by name; only the one that is called is imported, for they bring torch and their peers."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(points(GROUP))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that knows the summary: enough for the list of benchmarks."""
        point = points(GROUP).get(cmd_name)
        return _mounted(cmd_name, _stand_in(summary(point))) if point else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, _mounted(name, as_command(points(GROUP)[name].load())) if name else None, rest


def _mounted(name: str, run: Callable[..., None]) -> Any:
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(run)
    command = typer.main.get_command(single)
    command.name = name
    return command


def _stand_in(summary: str) -> Callable[[], None]:
    def stand_in() -> None:
        """Stand in."""

    stand_in.__doc__ = summary
    return stand_in


app = typer.Typer(
    cls=_Benchmarks,
    add_completion=False,
    no_args_is_help=True,
    help="Run benchmarks side by side with peers.",
)


@app.callback()
def _root() -> None:
    """Run benchmarks side by side with peers."""


def as_command(run: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """A benchmark as a command: options of its parameters, a progress bar, and ``--json``."""
    hints = get_type_hints(run)
    about = inspect.getdoc(run) or ""
    texts = {name: " ".join(text.split()) for name, text in _ARGUMENT.findall(run.__doc__ or "")}
    parameters = []
    progress_name = None
    for name, parameter in inspect.signature(run).parameters.items():
        if Progress in (hints[name], *get_args(hints[name])):
            progress_name = name
            continue
        option = typer.Option(help=texts.get(name, ""))
        default = parameter.default
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=list(default) if isinstance(default, tuple) else default,
                annotation=Annotated[_plain_type(hints[name]), option],
            )
        )
    as_json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
    parameters.append(
        inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=as_json)
    )

    def command(**given: Any) -> None:
        wanted_json = given.pop("as_json")
        if progress_name:
            given[progress_name] = RichProgress()
        answer = run(**given)
        if not isinstance(answer, dict):
            raise OneSearchError(f"the benchmark returned a {type(answer).__name__}, not a dictionary")
        if wanted_json:
            print_json(answer)
        else:
            _show(answer)

    command.__doc__ = about.partition("\n\n")[0]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _plain_type(hint: Any) -> Any:
    """A type that the command line knows: sequences become lists, ``X | None`` stays as it is."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        inner = [_plain_type(one) for one in arguments if one is not NoneType]
        return inner[0] | None if len(inner) == 1 else hint
    if origin in (list, tuple, Sequence):
        return list[arguments[0]]  # type: ignore[valid-type]
    return hint


def _show(answer: dict[str, Any]) -> None:
    rows = answer.get("rows", [])
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if rows:
        out.print(table("", columns, [[_cell(row.get(column)) for column in columns] for row in rows]))
    for name, value in answer.items():
        if isinstance(value, dict):
            out.print(_table_of(name, value))
        elif name != "rows":
            out.print(Text(f"{name}: {_cell(value)}"))


def _table_of(name: str, values: dict[str, Any]) -> Any:
    """A dictionary; one of dictionaries has a column for each of their keys."""
    rows = {key: value if isinstance(value, dict) else {"": value} for key, value in values.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [[key, *(_cell(row.get(column)) for column in columns)] for key, row in rows.items()]
    return table("", [name, *columns], cells)


def _cell(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
