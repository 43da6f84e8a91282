"""Settings of the user encoders in the box."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

UserId = Literal["vector", "nearest_two", "hashed", "none"]
QUICK = {"recent": 3, "heads": 2, "rsu_codes": 4}
"""Settings of ``museq`` for the conformance suite."""


class PassThroughConfig(BaseModel):
    """Settings of the pass-through user encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    text_limit: int = Field(default=24, ge=1, le=512)
    """Tokens kept of a query's text; 99.9 % of Home Depot's queries have fewer."""


class MuSeqConfig(BaseModel):
    """Settings of Mu-Seq: what is seen of a shopper's behaviour, and the module that reads the long part."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    text_limit: int = Field(default=24, ge=1, le=512)
    """Tokens kept of a query's text; 99.9 % of Home Depot's queries have fewer."""
    prompt_limit: int = Field(default=128, ge=8, le=4096)
    """Tokens of a whole prompt; the oldest pairs of the recent part go first. Not above the generator's own
    limit, which would cut the newest off."""
    recent: int = Field(default=5, ge=1, le=16)
    """n: newest (query, item) pairs in the prompt, and items behind the recent user id."""
    stand_ins: int = Field(default=10, ge=0, le=50)
    """Items most clicked for the query that the prompt shows to a stranger; one fewer for each item of the
    shopper's own that it shows."""
    user_id: UserId = "vector"
    """What the user's tokens are made of. ``vector``: the weighted mean of what was clicked, quantised, of
    the recent and of the long sequence. ``nearest_two``: the two nearest centroids a level of the long one's.
    ``hashed``: a hash of the user's id, which knows nothing of behaviour. ``none``: no such tokens."""
    short: bool = True
    """Whether the newest pairs stand in the prompt."""
    long: bool = True
    """Whether clicks, orders and what is relevant of them are summed up in vectors before the prompt."""
    cold: bool = True
    """Whether the items most clicked for the query stand in where a shopper's behaviour is short or empty."""
    half_life_days: float = Field(default=14.0, gt=0)
    """Half-life of a click's weight when the items most clicked for a query are counted, in days: the one of
    ``[training]``, which the stand-ins of training are counted with."""
    rsu_codes: int = Field(default=16, ge=1)
    """First-level codes nearest to the query's own whose items count as relevant to it, at most a quarter of
    the codebook."""
    queries: int = Field(default=2, ge=1, le=16)
    """Learned queries of the Q-Former: prefix vectors P."""
    layers: int = Field(default=1, ge=1, le=6)
    """Layers of the Q-Former, each a cross-attention and a feed-forward part."""
    heads: int = Field(default=4, ge=1)
    """Heads of its attention; they have to divide the generator's width."""
    seed: int = Field(default=0, ge=0)
    """Seed of the Q-Former's first weights."""
