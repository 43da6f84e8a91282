"""Settings of the rewards in the box."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table of settings: unknown keys are errors, the text under a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RelevanceConfig(Section):
    """Settings of the relevance reward."""

    language: str = "english"
    """Snowball stemmer for words of spaced scripts (``none``: no stemming); Chinese needs none."""
    k1: float = Field(default=0.5, gt=0, le=5)
    """BM25's saturation of repeated terms: low, as repeats in stacked titles mean little."""
    b: float = Field(default=0.5, ge=0, le=1)
    """BM25's normalisation by length."""
    l2: float = Field(default=1e-3, gt=0, le=1)
    """Pull of the standardised weights towards their defaults."""


class TowersConfig(Section):
    """The three towers and how they are fitted."""

    trees: int = Field(default=300, ge=0)
    """Boosted trees below the towers at most; the newest searches before the held-out ones say how many."""
    rank: int = Field(default=4, ge=1)
    """Dimensions that the request's and the candidate's vectors are mapped to before they are multiplied."""
    hidden: int = Field(default=64, ge=2)
    """Width of the shared trunk's first layer; the second has half of it."""
    tower: int = Field(default=16, ge=1)
    """Width of each tower."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout in the trunk."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the impressions at most."""
    batch_size: int = Field(default=1_024, ge=1)
    """Impressions in a batch."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate of AdamW; it rises for a tenth of the steps and falls to zero."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of AdamW."""
    patience: int = Field(default=3, ge=1)
    """Stop after so many passes without a better loss on the newest searches before the held-out ones."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, order and dropout."""


class ParsConfig(RelevanceConfig):
    """Settings of the reward of PARS."""

    lambdas: tuple[float, float, float, float, float] | None = None
    """λ of CTR, CVR, CTCVR, relevance and the list-wise score, to be taken as they are; without them they are
    tuned on held-out lists."""
    towers: TowersConfig = TowersConfig()
    """The three towers."""
    baseline: bool = True
    """Whether to fit LightGBM on counters and similarity beside the towers, for the report."""
    tuning_lists: int = Field(default=800, ge=1)
    """Held-out lists, and as many held-out searches with a click, that λ are tuned on at most."""
