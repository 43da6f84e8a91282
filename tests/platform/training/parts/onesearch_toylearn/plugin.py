"""Entry point."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts import Offer, Role
from onesearch.hookspecs import hookimpl
from pydantic import BaseModel, ConfigDict


class ToyLearnConfig(BaseModel):
    """Settings of every toy part."""

    model_config = ConfigDict(extra="forbid")

    steps: int = 3
    """Steps of the generator a stage."""
    step_ms: float = 0.0
    """How long a step takes."""
    fail: bool = False
    """Whether the reward fails."""
    prefers: bool = False
    """Whether the generator learns preferences."""
    worsens: bool = False
    """Whether it gets everything backwards by them."""
    sleep_ms: float = 0.0
    prefix: tuple[int, int] = (0, 0)
    width: int = 8
    """Width of the vectors that the generator reads before a prompt."""


def _offer(role: Role) -> list[Offer]:
    name = "".join(word.title() for word in role.split("_"))
    learner, server = f"onesearch_toylearn.learners:{name}Learner", f"onesearch_toy.servers:Toy{name}"
    return [Offer("toylearn", ToyLearnConfig, learner, server)]


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
