"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Certify = Annotated[
    int | None,
    typer.Option(
        help="Begin narrow, and widen only until so many of the best SIDs are proven; 0: all beams.",
        show_default="of the release",
        min=0,
    ),
]
