"""A few positions show what would have stood below, so that the log does not only know what was chosen.

With probability ε, each by itself, a place p of a page of k is *explored*: its item gives way to one of the
M candidates right below the page (ranks k + 1 to k + M), drawn uniformly, no candidate twice. All other
places keep their item. So, exactly and whatever the scores,

- the item of rank p stands at place p with probability 1 - ε,
- each of the M candidates stands at place p with probability ε / M,

and that is the *propensity* of what is shown: the probability that this item was shown at this place, given
the request and the release that answered. (Which places are explored is drawn first, then different
candidates for all of them at once; each place's candidate is uniform among the M by symmetry.) Where fewer
candidates than places are left, M < k, only the last M places can be explored; the others have propensity 1,
as has everything that is shown without exploring.

The draw depends on the request's id alone: the same request is answered in the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onesearch.serving.requests import Hit, SearchRequest


@dataclass(frozen=True)
class Exploration:
    """How much is explored.

    Attributes:
        share: ε, the probability that a place is explored; 0: none is.
        depth: M, how many candidates below the page it draws from.
    """

    share: float = 0.0
    depth: int = 50

    def applies(self, request: SearchRequest) -> bool:
        """Not where an offset names a later page, on which items moved up would stand again; a page token
        knows what was shown. Explanations are of the ranking as it is."""
        return self.share > 0 and request.offset == 0 and not request.explain

    def widened(self, request: SearchRequest) -> SearchRequest:
        """The request with the candidates below its page."""
        return replace(request, k=request.k + self.depth)

    def draw(self, hits: Sequence[Hit], k: int, request_id: str) -> tuple[Hit, ...]:
        """A page of ``k`` from the answer to :meth:`widened`, with ranks by place and propensities."""
        page, below = list(hits[:k]), hits[k : k + self.depth]
        first = max(0, len(page) - len(below))
        rng = np.random.default_rng(_seed(request_id))
        explored = first + np.flatnonzero(rng.random(len(page) - first) < self.share)
        kept = [1.0] * first + [1.0 - self.share] * (len(page) - first)
        shown = [replace(hit, propensity=chance) for hit, chance in zip(page, kept, strict=True)]
        drawn = rng.permutation(len(below))[: len(explored)]
        for place, candidate in zip(explored.tolist(), drawn.tolist(), strict=True):
            chance = self.share / len(below)
            shown[place] = replace(below[candidate], rank=page[place].rank, propensity=chance)
        return tuple(shown)


def _seed(request_id: str) -> int:
    digest = hashlib.blake2b(f"explore\0{request_id}".encode("utf-8", "replace"), digest_size=16).digest()
    return int.from_bytes(digest, "big")
