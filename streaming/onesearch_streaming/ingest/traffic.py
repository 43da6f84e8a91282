"""Simulated traffic, for measuring: pages of ten impressions, and what is clicked and ordered of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onesearch.config import KafkaConfig
from onesearch.events.messages import Interaction, now_us
from onesearch.kafka.broker import Broker, create_topics
from onesearch.kafka.contract import Client
from onesearch.kafka.opening import connect, settings

PAGE = 10
_ITEMS, _QUERIES = 50_000, 5_000


def pages(seed: int, mark: str, shoppers: int) -> Iterator[list[Interaction]]:
    """Pages without end, each with its impressions, clicks (one in three pages) and orders (one in thirty).

    Args:
        mark: begins every id, so that no two runs have the same ones.
        shoppers: how many there are; each page is of one of them, some of many, most of few.
    """
    rng = np.random.default_rng([seed, 0x1E])
    number = 0
    while True:
        users = (shoppers * rng.random(1_000) ** 2).astype(int)
        items = rng.integers(_ITEMS, size=(1_000, PAGE))
        queries, chances = rng.integers(_QUERIES, size=1_000), rng.random(1_000)
        places = rng.integers(PAGE, size=1_000)
        for user, shown, query, chance, place in zip(users, items, queries, chances, places, strict=True):
            request, now = f"{mark}{number:028x}", now_us()
            done = [("impression", at) for at in range(PAGE)]
            if chance < 1 / 3:
                done.append(("click", int(place)))
            if chance < 1 / 30:
                done.append(("order", int(place)))
            yield [
                Interaction(
                    f"{request}-{action[0]}{at}", now, f"shopper-{user}", f"item-{shown[at]}", action,
                    query=f"simulated query {query}", request_id=request, position=at, score=0.5,
                    propensity=1.0, release="simulated",
                )
                for action, at in done
            ]  # fmt: skip
            number += 1


@contextmanager
def own_topics(
    kafka: str | None, library: str, mark: str, partitions: int
) -> Iterator[tuple[Client, Broker | None]]:
    """Topics of our own, in a cluster or in a broker that is started for it and ended with it.

    Args:
        kafka: bootstrap servers; None starts a broker on this machine.
        library: which client.
        mark: ends the topics' names.
    """
    with TemporaryDirectory(prefix="onesearch-kafka-") as folder:
        broker = None if kafka else Broker(Path(folder))
        try:
            servers = broker.start(port=0) if broker else kafka
            chosen = settings(servers).model_copy(
                update={
                    "client": library,
                    "interactions": f"bench-interactions-{mark}",
                    "catalogue": f"bench-catalogue-{mark}",
                    "dead_letters": f"bench-letters-{mark}",
                }
            )
            client = connect(chosen)
            with client.admin() as admin:
                create_topics(admin, chosen, partitions)
            yield client, broker
        finally:
            if broker is not None:
                broker.stop(9)
            else:
                with connect(chosen).admin() as admin:
                    admin.delete([chosen.interactions, chosen.catalogue, chosen.dead_letters])


def quickest(chosen: KafkaConfig) -> Client:
    """A client to fill topics with: the faster one where it is installed."""
    library = "confluent" if find_spec("confluent_kafka") else chosen.client
    return connect(chosen.model_copy(update={"client": library}))
