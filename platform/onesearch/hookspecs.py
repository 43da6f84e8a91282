"""The four hooks. A hook returns offers: named components, of which the configuration picks one by name."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from onesearch.contracts.offers import Offer

PROJECT = "onesearch"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def tokenizer() -> Sequence[Offer]:  # type: ignore[empty-body]
    """Offer tokenizers: text → keywords, embedding, semantic ID."""


@hookspec
def user_encoder() -> Sequence[Offer]:  # type: ignore[empty-body]
    """Offer user encoders: shopper state and query → prompt tokens and prefix vectors."""


@hookspec
def generator() -> Sequence[Offer]:  # type: ignore[empty-body]
    """Offer generators: prompt → semantic IDs with log-probabilities."""


@hookspec
def reward() -> Sequence[Offer]:  # type: ignore[empty-body]
    """Offer rewards: query, shopper and candidates → scores by part."""
