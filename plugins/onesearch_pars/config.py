"""Settings of the rewards in the box."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class RelevanceConfig(BaseModel):
    """Settings of the relevance reward."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    language: str = "english"
    """Snowball stemmer for words of spaced scripts (``none``: no stemming); Chinese needs none."""
    k1: float = Field(default=0.5, gt=0, le=5)
    """BM25's saturation of repeated terms: low, as repeats in stacked titles mean little."""
    b: float = Field(default=0.5, ge=0, le=1)
    """BM25's normalisation by length."""
    l2: float = Field(default=1e-3, gt=0, le=1)
    """Pull of the standardised weights towards their defaults."""
