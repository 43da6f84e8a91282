"""What fixes a network's sizes, and constants that its learning and serving halves share. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from onesearch.vocabulary import BOS, EOS

# What the decoder reads first tells it what to write: a SID or a text.
SID_START, TEXT_START = BOS, EOS
# What hides a position; finite, so that a prompt without a token sees everything instead of nothing (NaN).
UNSEEN = -1e9


@dataclass(frozen=True)
class Shape:
    """What fixes the sizes of all tensors, beside the configuration.

    Attributes:
        vocabulary: number of ids; text: how many of them are special and text tokens.
        levels: codebook sizes. vector: dimension D of the query embedding.
    """

    vocabulary: int
    text: int
    levels: tuple[int, ...]
    vector: int

    def offset(self, level: int) -> int:
        """The id of code 0 of a level."""
        return self.text + sum(self.levels[:level])

    def as_json(self) -> dict[str, object]:
        """For the saved learner's JSON."""
        return asdict(self)
