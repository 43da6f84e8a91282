"""What is searched for: queries, who asks them when, and what each should find."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from onesearch.errors import DataError, UsageError
from onesearch.evaluation.metrics import Relevant
from onesearch.evaluation.propensity import Logged

ALWAYS = 2**32
"""The moment of a search that names none: after all that a state can hold."""


@dataclass(frozen=True)
class Searches:
    """Searches to answer.

    Attributes:
        queries: S texts. user_ids: S ids, '' where nobody is named.
        relevant: what each should find; at least one item, but none where a log has no click.
        moments: i64[S], the second since 1970 when each was made; :data:`ALWAYS` where the file does not say.
        missing: how many relevant items the catalogue lacks; they cannot be found and count as misses.
        skipped: queries of the file that have nothing relevant.
        logged: what a log with propensities showed in each of them.
    """

    queries: list[str]
    user_ids: list[str]
    relevant: list[Relevant]
    moments: np.ndarray
    missing: int = 0
    skipped: int = 0
    logged: tuple[Logged, ...] | None = None

    def __len__(self) -> int:
        return len(self.queries)


def parquet_rows(path: Path) -> pl.DataFrame:
    """The rows of a Parquet file. Raises UsageError where there is none, DataError where it is not one."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from error
