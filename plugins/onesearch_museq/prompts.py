"""The one place where the pass-through prompt is laid out: learners and servers both call it.

``[QUERY] query text … [SEP] SID_q``, where SID_q is the query's own semantic ID (never the target's).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onesearch.errors import UsageError
from onesearch.vocabulary import QUERY, SEP, Vocabulary

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
