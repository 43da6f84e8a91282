"""``onesearch encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table
from rich.text import Text

from onesearch.cli._output import out, print_json
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.tokenizer import TextRole, TokenizerServer
from onesearch.errors import UsageError
from onesearch.releases.release import Release
from onesearch.semantic_ids import format_sid
from onesearch.serving.requests import check_query


def encode(
    texts: Annotated[list[str], typer.Argument(help="Texts to encode.", show_default=False)],
    release: Annotated[Path, typer.Option(help="The release's folder.", show_default=False)],
    role: Annotated[str, typer.Option(help="Encode as a query or as an item.")] = "query",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show keywords, semantic ID and what each code means, in this process."""
    if role not in ("query", "item"):
        raise UsageError(f"--role: {role!r} is neither query nor item")
    for text in texts:
        check_query(text)
    opened = Release.open(release)
    tokenizer = cast(TokenizerServer, opened.server("tokenizer", opened.context(Runtime())))
    sids = tokenizer.quantise(tokenizer.embed(texts, cast(TextRole, role))).tolist()
    found = tokenizer.keywords(texts)
    rows = [
        {
            "text": text,
            "keywords": [{"text": word.text, "attribute": word.attribute} for word in words],
            "sid": format_sid(sid),
            "codes": sid,
            "meanings": tokenizer.describe(sid),
        }
        for text, words, sid in zip(texts, found, sids, strict=True)
    ]
    if json:
        print_json({"release": opened.name, "encodings": rows})
        return
    made = Table(box=None, header_style="bold", pad_edge=False)
    made.add_column("text")
    made.add_column("keywords")
    made.add_column("code", style="magenta", no_wrap=True)
    made.add_column("stands for", style="dim")
    for row in rows:
        words = Text()
        for word in row["keywords"]:
            words.append(word["text"], style="yellow").append(f" {word['attribute']}\n", style="dim")
        codes = [f"{chr(97 + level)}_{code}" for level, code in enumerate(row["codes"])]
        made.add_row(Text(row["text"]), words, "\n".join(codes), Text("\n".join(row["meanings"])))
        made.add_section()
    out.print(made)
