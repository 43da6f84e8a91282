"""The one place where prompts are laid out: training and serving both come here.

Pass-through: ``[QUERY] query text … [SEP] SID_q``, where SID_q is the query's own semantic ID (never the
target's). Mu-Seq::

    [USER] uid × 2L  [QUERY] text [SEP] SID_q  [RECENT] q1 s1 … qn sn  [POPULAR] s …

A part without content is left out with its mark, but a user of whom nothing is known is ``[USER] [NONE]``.
q_j and s_j are SIDs of L tokens; one ``[NONE]`` token stands for the query of a click on something
recommended, and for the item of a query that nothing was clicked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onesearch.errors import UsageError
from onesearch.vocabulary import NONE, POPULAR, QUERY, RECENT, SEP, USER, Vocabulary

from onesearch_museq.behaviour import Pair

# Few tokens are longer than this many characters; cutting
# the text there first keeps a 100 kB query from being tokenised whole.
_CHARACTERS_PER_TOKEN = 16


def build_prompts(
    vocabulary: Vocabulary, queries: Sequence[str], query_sids: np.ndarray, text_limit: int
) -> list[list[int]]:
    """Prompt ids of B queries, not padded; row b has 2 + min(text tokens, text_limit) + L ids.

    Args:
        vocabulary: the id space.
        queries: B query texts.
        query_sids: i32[B, L], the queries' own SIDs.
        text_limit: tokens kept of each text.

    Raises:
        UsageError: the SIDs' shape does not fit the queries or the vocabulary's levels.
    """
    sids = np.asarray(query_sids, dtype=np.int32)
    if sids.shape != (len(queries), len(vocabulary.levels)):
        raise UsageError(
            f"SIDs of shape {sids.shape} do not fit {len(queries)} queries of {len(vocabulary.levels)} levels"
        )
    texts = vocabulary.text_ids(
        [query[: text_limit * _CHARACTERS_PER_TOKEN] for query in queries], text_limit
    )
    codes = vocabulary.sid_ids(sids).tolist()
    return [[QUERY, *text, SEP, *code] for text, code in zip(texts, codes, strict=True)]


def text_room(vocabulary: Vocabulary, limit: int) -> int:
    """Tokens of query text that fit a prompt of ``limit`` tokens beside user id and SID_q."""
    return limit - (1 + 2 * len(vocabulary.levels)) - (2 + len(vocabulary.levels))


def fitting(
    pairs: Sequence[Pair], stand_ins: Sequence[int], room: int, levels: int
) -> tuple[list[Pair], list[int]]:
    """What of pairs (oldest first) and stand-ins (best first) fits ``room`` tokens.

    The oldest pairs go first, then the last stand-ins.
    """
    kept, popular = list(pairs), list(stand_ins)
    while kept and recent_length(kept, levels) + popular_length(popular, levels) > room:
        del kept[0]
    while popular and recent_length(kept, levels) + popular_length(popular, levels) > room:
        del popular[-1]
    return kept, popular


def recent_length(pairs: Sequence[Pair], levels: int) -> int:
    """Tokens of the recent part."""
    tokens = sum((levels if pair.query else 1) + (levels if pair.item >= 0 else 1) for pair in pairs)
    return 1 + tokens if pairs else 0


def popular_length(stand_ins: Sequence[int], levels: int) -> int:
    """Tokens of the popular part."""
    return 1 + levels * len(stand_ins) if stand_ins else 0


def user_part(codes: list[int] | None) -> list[int]:
    """``[USER]`` and the 2·L ids of a user, or of none."""
    return [USER, NONE] if codes is None else [USER, *codes]


def recent_part(pairs: Sequence[tuple[Sequence[int] | None, Sequence[int] | None]]) -> list[int]:
    """``[RECENT]`` and the ids of each query and item, None for none."""
    tokens = [token for pair in pairs for ids in pair for token in ([NONE] if ids is None else ids)]
    return [RECENT, *tokens] if pairs else []


def popular_part(items: Sequence[Sequence[int]]) -> list[int]:
    """``[POPULAR]`` and the ids of each item."""
    return [POPULAR, *(token for ids in items for token in ids)] if items else []
