"""The id space of prompts: special tokens, text tokens, then the codes of every SID level."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from onesearch.errors import ArtifactError

SPECIALS = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<sep>",
    "<unk>",
    "<mask>",
    "<query>",
    "<item>",
    "<category>",
    "<none>",
    "<user>",
    "<recent>",
    "<popular>",
)
PAD, BOS, EOS, SEP, UNK, MASK, QUERY, ITEM, CATEGORY, NONE, USER, RECENT, POPULAR = range(len(SPECIALS))


@dataclass(frozen=True)
class Vocabulary:
    """Text tokens (byte-level BPE, so any script fits) followed by the codes of each SID level.

    Attributes:
        text: the text tokenizer; its first ids are :data:`SPECIALS`.
        levels: codebook sizes; code ``c`` of level ℓ has id ``text_size + sum(levels[:ℓ]) + c``.
    """

    text: Tokenizer
    levels: tuple[int, ...]

    @classmethod
    def train(cls, texts: Iterable[str], levels: Sequence[int], size: int = 16_000) -> Vocabulary:
        """Learn at most ``size`` text tokens from texts."""
        text = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
        text.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        text.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIALS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        text.train_from_iterator(texts, trainer)
        return cls(text, tuple(levels))

    @property
    def text_size(self) -> int:
        """Number of special and text tokens."""
        return self.text.get_vocab_size()

    @property
    def size(self) -> int:
        """Number of all ids."""
        return self.text_size + sum(self.levels)

    def level_offset(self, level: int) -> int:
        """The id of code 0 of a level."""
        return self.text_size + sum(self.levels[:level])

    def sid_ids(self, sids: np.ndarray) -> np.ndarray:
        """Codes i32[…, L] → ids i32[…, L]."""
        offsets = np.array([self.level_offset(level) for level in range(len(self.levels))], dtype=np.int32)
        return np.asarray(sids, dtype=np.int32) + offsets

    def text_ids(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """Token ids of each text, at most ``limit``."""
        return [
            encoding.ids[:limit]
            for encoding in self.text.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of token ids; specials and SID codes are left out."""
        return self.text.decode([i for i in ids if len(SPECIALS) <= i < self.text_size]).strip()

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``layout.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.text.save(str(folder / "tokenizer.json"))
        (folder / "layout.json").write_text(json.dumps({"levels": list(self.levels)}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Read what :meth:`save` wrote. Raises ArtifactError naming the file that does not fit."""
        try:
            layout = json.loads((folder / "layout.json").read_text(encoding="utf-8"))
            levels = tuple(int(size) for size in layout["levels"])
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"{folder / 'layout.json'}: not a vocabulary layout ({error})") from error
        path = folder / "tokenizer.json"
        try:
            text = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ArtifactError(f"{path}: not a text tokenizer ({error})") from error
        return cls(text, levels)


def pad(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids → ids i32[B, T] padded with 0 on the right, and mask bool[B, T]; T ≥ 1."""
    width = max([1, *(len(row) for row in rows)])
    ids = np.zeros((len(rows), width), dtype=np.int32)
    mask = np.zeros((len(rows), width), dtype=bool)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = True
    return ids, mask
