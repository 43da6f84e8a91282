"""What a generator learns from: prompts with a target, a legal SID (a leaf of the tree) or a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onesearch.index import LiveTree
from onesearch.vocabulary import Vocabulary


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``; i32, i64."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: list[list[int]]) -> Ragged:
        """From lists."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        values = np.fromiter((value for row in rows for value in row), dtype=np.int32, count=int(offsets[-1]))
        return cls(values, offsets)

    @classmethod
    def of_mask(cls, ids: np.ndarray, mask: np.ndarray) -> Ragged:
        """What the mask bool[N, T] lets through of ids i32[N, T], row by row."""
        offsets = np.zeros(len(ids) + 1, dtype=np.int64)
        np.cumsum(mask.sum(axis=1), out=offsets[1:])
        return cls(ids[mask].astype(np.int32), offsets)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, one after another."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.offsets) for part in parts)])
        values = np.concatenate([np.zeros(0, np.int32), *(part.values for part in parts)])
        return cls(values, np.append(np.int64(0), np.cumsum(lengths)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, at: int) -> np.ndarray:
        """Row ``at``."""
        return self.values[self.offsets[at] : self.offsets[at + 1]]

    def take(self, rows: np.ndarray) -> Ragged:
        """The rows of these numbers, in this order."""
        starts = self.offsets[:-1][rows]
        lengths = self.offsets[1:][rows] - starts
        offsets = np.append(np.int64(0), np.cumsum(lengths))
        at = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[at], offsets)


@dataclass(frozen=True)
class Histories:
    """Vectors that sum shoppers' histories up, for the user encoder's module; equal ones are stored once.

    Attributes:
        values: f16[M, F, D]. mask: bool[M, F], false where a vector has nothing to say.
        row: i32[N], the row of ``values`` of each example.
    """

    values: np.ndarray
    mask: np.ndarray
    row: np.ndarray


@dataclass(frozen=True)
class SidTask:
    """Prompt → SID: the target is a leaf, its probability a product over the legal children of each prefix.

    Attributes:
        name: e.g. ``query text → item SID``.
        prompts: N rows of ids.
        vector: i32[N], row of ``Examples.vectors``, this prompt's e° (the prior's query); -1: no prior.
        leaf: i32[N], target leaf of the tree.
        weight: f32[N], how much an example counts.
        held_out: bool[N], true for examples whose *query* is held out: for early stopping, never trained on.
        histories: of the N examples; None where prompts know nothing of a shopper.
    """

    name: str
    prompts: Ragged
    vector: np.ndarray
    leaf: np.ndarray
    weight: np.ndarray
    held_out: np.ndarray
    histories: Histories | None = None


@dataclass(frozen=True)
class TextTask:
    """Prompt → text: plain next-token loss over the text vocabulary; targets end with EOS."""

    name: str
    prompts: Ragged
    targets: Ragged
    weight: np.ndarray


@dataclass(frozen=True)
class Examples:
    """All tasks of one stage, over one tree.

    Attributes:
        vectors: f16[V, D], e° of the different query (and item) texts that prompts were made from.
        share: how often a batch is drawn from each task, by name; tasks not named share equally.
    """

    vocabulary: Vocabulary
    tree: LiveTree
    vectors: np.ndarray
    sid_tasks: tuple[SidTask, ...]
    text_tasks: tuple[TextTask, ...] = ()
    share: dict[str, float] = field(default_factory=dict)

    @property
    def history_dim(self) -> int:
        """Dimension D of the histories' vectors; 0 where no task has histories."""
        dims = [task.histories.values.shape[2] for task in self.sid_tasks if task.histories is not None]
        return dims[0] if dims else 0
