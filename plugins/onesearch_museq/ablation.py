"""``onesearch bench ablation``, study museq: what each way of seeing a shopper is worth.

One release is trained up to the stage that knows no shopper. From its generator every arm goes through the
personalisation stage on its own, with one part of Mu-Seq left out, and is asked the same searches by the same
shoppers. Figures are the generator's own order, before the reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from onesearch.compiling.runtime import Runtime
from onesearch.config import Config
from onesearch.contracts.generator import GeneratorLearner, GeneratorServer
from onesearch.contracts.offers import ServingContext
from onesearch.contracts.tokenizer import TokenizerLearner, TokenizerServer
from onesearch.contracts.user_encoder import ShopperState
from onesearch.data.simulation import SimulatedShoppers
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.evaluation.metrics import Relevant, estimates, paired, per_query
from onesearch.progress import Progress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline
from onesearch.shoppers.log import EventLog
from onesearch.training.corpus import Corpus
from onesearch.training.personal import choose, personalisation, targets_of
from onesearch.training.run import train
from onesearch.training.split import Split, split_logs

from onesearch_museq.config import MuSeqConfig
from onesearch_museq.learner import MuSeqLearner
from onesearch_museq.server import MuSeqServer

SEARCHES = 2_000
WANTED = 5
"""Items that are right for a simulated search: those that its shopper would order most likely."""
BASE = ("alignment", "cooccurrence")
WHOLE = "museq"


@dataclass(frozen=True)
class Arm:
    """One way of seeing shoppers: what is left out, and the settings that do so."""

    what: str
    without: str
    museq: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


ARMS = (
    Arm(WHOLE, ""),
    Arm("hashed user id", "user id from behaviour", {"user_id": "hashed"}),
    Arm("two nearest centroids a level", "user id by vectors", {"user_id": "nearest_two"}),
    Arm("no short sequence", "short sequence", {"short": False}),
    Arm("no long sequences", "long sequences", {"long": False}),
    Arm("no sliding window", "sliding window", training={"sliding_window": False}),
    Arm("no cold defaults", "cold defaults", {"cold": False}),
)


@dataclass(frozen=True)
class Searches:
    """Searches with who made them, what was known of them, and what is right."""

    queries: list[str]
    states: list[ShopperState]
    relevant: list[Relevant]


def museq(store: Store, config: Config, work: Path, passes: int, progress: Progress) -> list[dict[str, Any]]:
    """Rows of Mu-Seq with each part left out in turn, and of the whole asked by strangers.

    ``change`` is of R@10 over the whole. Arms train as long as the configuration's personalisation stage
    says; ``passes`` says nothing here. On a simulated shop the searches are those of the day after the log,
    and right is what the shopper would order most likely; elsewhere they are the held-out ones of the log,
    which also stopped the training, of every arm alike.

    Raises UsageError where the user encoder is another one, or the store logs no shoppers' searches.
    """
    _, settings = config.component("user_encoder")
    if not isinstance(settings, MuSeqConfig):
        raise UsageError(f"{config.source}: its user encoder is '{config.names['user_encoder']}', not museq")
    base = replace(config, training=config.training.model_copy(update={"stages": BASE}))
    release = train(store, work / "releases", "base", base, progress).release
    study = _Study(store, release, config, settings, work, progress)
    measured = {arm.what: study.measure(arm) for arm in ARMS}
    measured["asked by strangers"] = study.measure(ARMS[0], strangers=True)
    without = {arm.what: arm.without for arm in ARMS} | {"asked by strangers": "shopper's state"}
    return [_row(store, what, without[what], own, measured[WHOLE]) for what, own in measured.items()]


def _row(
    store: Store, what: str, without: str, own: dict[str, np.ndarray], whole: dict[str, np.ndarray]
) -> dict[str, Any]:
    names = ("HR@10", "R@10", "MRR@10", "HR@100", "R@100")
    means, change = estimates({name: own[name] for name in names}), paired(own, whole)["R@10"]
    return {
        "part": "museq",
        "what": what,
        "without": without,
        "set": store.source + (" (simulated)" if store.simulated else ""),
        **{name: round(means[name].value, 5) for name in names},
        "change": round(change.value, 5),
        "low": round(change.low, 5),
        "high": round(change.high, 5),
        "against": WHOLE,
        "queries": len(own["R@10"]),
    }


class _Study:
    """What the arms share: the release that they start from, its texts, the log, and the searches."""

    def __init__(
        self,
        store: Store,
        release: Release,
        config: Config,
        settings: MuSeqConfig,
        work: Path,
        progress: Progress,
    ) -> None:
        self.store, self.release, self.config, self.settings = store, release, config, settings
        self.work, self.progress = work, progress
        training = config.training
        self.split: Split = split_logs(
            store, training.held_out, training.relevant_grade, training.half_life_days
        )
        self.context: ServingContext = release.context(Runtime())
        self.tokenizer = cast(TokenizerServer, release.server("tokenizer", self.context))

    def measure(self, arm: Arm, strangers: bool = False) -> dict[str, np.ndarray]:
        """Metrics of each search, by name; trains the arm unless it is there already."""
        folder = self.work / arm.what.replace(" ", "-")
        if not (folder / "generator").exists():
            self._train(arm, folder)
        config = self.config
        generator_offer, generator_settings = config.component("generator")
        pipeline = Pipeline(
            self.context,
            self.tokenizer,
            MuSeqServer.open(folder / "user_encoder", self.context, self.settings),
            cast(
                GeneratorServer,
                generator_offer.server_class().open(folder / "generator", self.context, generator_settings),
            ),
            beams=config.serving.beams,
        )
        searches = self.searches
        states = [ShopperState()] * len(searches.states) if strangers else searches.states
        ranked = np.full((len(states), 350), -1, np.int32)
        with self.progress.task(f"searching: {arm.what}", total=len(states)) as task:
            for row, (query, state) in enumerate(zip(searches.queries, states, strict=True)):
                found = pipeline.candidates([query], [state]).candidates.items[0][:350]
                ranked[row, : len(found)] = found
                task.advance()
        return per_query(ranked, searches.relevant)

    def _train(self, arm: Arm, folder: Path) -> None:
        """Put an arm through the personalisation stage and export it to ``folder``."""
        self.progress.say(f"arm: {arm.what}")
        training = self.config.training.model_copy(update=dict(arm.training))
        user = MuSeqLearner(self.settings.model_copy(update=dict(arm.museq)))
        user.fit(self.store, folder, self.progress)
        user.export(folder / "bare")
        bare = MuSeqServer.open(folder / "bare", self.context, user.settings)
        examples = personalisation(
            self.corpus, self.store, self.split, lambda: self.log, bare, training, self.progress
        )
        generator = cast(GeneratorLearner, self.release.learner("generator"))
        module = user.module(self.context.codebooks.dim, generator.prefix_width)
        generator.fit("personalisation", examples, folder / "checkpoints", self.progress, module)
        user.export(folder / "user_encoder")
        draft = folder / "generator.draft"
        generator.export(draft)
        draft.rename(folder / "generator")

    @cached_property
    def log(self) -> EventLog:
        """Of the whole store."""
        return EventLog.of_store(self.store)

    @cached_property
    def corpus(self) -> Corpus:
        """Texts with their vectors, and prompts of unknown shoppers, which every arm lays out alike."""
        training = self.config.training
        return Corpus.build(
            self.store.items(),
            self.split.positives(),
            self.context.index,
            self.context.vocabulary,
            cast(TokenizerLearner, self.release.learner("tokenizer")),
            self.tokenizer,
            cast(MuSeqServer, self.release.server("user_encoder", self.context)),
            training.pseudo_queries,
            training.seed,
            self.progress,
        )

    @cached_property
    def searches(self) -> Searches:
        """What every arm is asked."""
        if self.store.simulated:
            shoppers = SimulatedShoppers.open(self.store)
            wanted = shoppers.wanted(shoppers.requests(SEARCHES, seed=1), WANTED)
            index = self.context.index
            wanted = wanted.with_columns(
                item=pl.Series([index.number(item) for item in wanted["item_id"]], dtype=pl.Int32),
                moment=pl.col("ts").dt.epoch("s"),
            )
        else:
            held_out = choose(targets_of(self.corpus, self.store, self.split), self.config.training)
            held_out = held_out.filter("held_out").sample(fraction=1.0, shuffle=True, seed=0)
            wanted = held_out.head(SEARCHES).with_columns(grade=pl.lit(1.0))
        asked = wanted.group_by("query", "user_id", "moment", maintain_order=True).agg("item", "grade")
        users: Sequence[str] = asked["user_id"].to_list()
        return Searches(
            asked["query"].to_list(),
            self.log.states_before(users, asked["moment"].to_numpy()),
            [
                Relevant(np.array(items, np.int32), np.array(grades, np.float32))
                for items, grades in zip(asked["item"].to_list(), asked["grade"].to_list(), strict=True)
            ],
        )
