"""Entry point."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts import Offer, Role
from onesearch.hookspecs import hookimpl
from pydantic import BaseModel


class ToyConfig(BaseModel):
    """Settings of every toy part."""

    sleep_ms: float = 0.0
    """How long the generator pretends to work on a batch."""
    prefix: tuple[int, int] = (0, 0)
    """Number and dimension of the vectors that the user encoder puts before a prompt."""


def _offer(role: Role) -> list[Offer]:
    name = "".join(word.title() for word in role.split("_"))
    return [
        Offer("toy", ToyConfig, f"onesearch_toy.servers:Toy{name}Learner", f"onesearch_toy.servers:Toy{name}")
    ]


@hookimpl
def tokenizer() -> Sequence[Offer]:
    return _offer("tokenizer")


@hookimpl
def user_encoder() -> Sequence[Offer]:
    return _offer("user_encoder")


@hookimpl
def generator() -> Sequence[Offer]:
    return _offer("generator")


@hookimpl
def reward() -> Sequence[Offer]:
    return _offer("reward")
