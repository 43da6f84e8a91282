"""What every stage of a training works with: the store, and what the stages before it made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import polars as pl

from onesearch.compiling.runtime import Runtime
from onesearch.config import Config
from onesearch.contracts.offers import ROLES, Learner, Role, Server, ServingContext
from onesearch.contracts.tokenizer import TokenizerLearner, TokenizerServer
from onesearch.contracts.user_encoder import UserEncoderServer
from onesearch.index import CatalogueIndex
from onesearch.progress import Progress
from onesearch.releases.release import QuerySids, Release, serving_context
from onesearch.shoppers.log import EventLog
from onesearch.training.attribution import exposures, newest
from onesearch.training.bundle import Bundle
from onesearch.training.corpus import Corpus
from onesearch.training.drawing import DrawnSearches, draw_searches
from onesearch.training.judging import judged_rows
from onesearch.training.ledger import Ledger
from onesearch.training.pairs import query_item_pairs
from onesearch.training.reports import StageReport
from onesearch.training.split import Split, split_logs
from onesearch.vocabulary import Vocabulary

if TYPE_CHECKING:
    from onesearch.data.store import Store

L = TypeVar("L", bound=Learner)


@dataclass
class Workshop:
    """One training's store, settings and outputs; whatever several stages read is made once, when asked for.

    Attributes:
        start: the release that the training continues; None: it begins anew.
        work: holds the ledger and what the stages made.
        reports: of the stages done so far. outs: where each stage's output is. inputs: the plan.
    """

    store: Store
    releases: Path
    name: str
    config: Config
    progress: Progress
    runtime: Runtime
    work: Path
    start: Release | None = None
    reports: list[StageReport] = field(default_factory=list)
    outs: dict[str, Path] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    @cached_property
    def ledger(self) -> Ledger:
        """What is done."""
        return Ledger(self.work)

    def figures(self, stage: str) -> dict[str, object]:
        """The figures of a stage that is done; none where it was not run."""
        return next((report.figures for report in self.reports if report.stage == stage), {})

    # -- components ------------------------------------------------------------------------------------------

    def learner(self, role: Role, kind: type[L], folder: Path | None = None) -> L:
        """A learner as a stage saved it: the newest of its role, or the one in ``folder``."""
        offer, settings = self.config.component(role)
        folder = folder or self.bundle.folder / "learners" / role
        return cast(L, offer.learner_class().load(folder, settings))

    def new(self, role: Role, kind: type[L]) -> L:
        """A learner that has learnt nothing."""
        offer, settings = self.config.component(role)
        return cast(L, offer.learner_class()(settings))

    def server(self, role: Role, folder: Path | None = None) -> Server:
        """The newest server of a role, or the one exported to ``folder``."""
        offer, settings = self.config.component(role)
        return offer.server_class().open(folder or self.bundle.folder / role, self.context, settings)

    @property
    def siblings(self) -> dict[str, Path]:
        """The exported components that a reward may read."""
        return {role: self.bundle.folder / role for role in ROLES if role != "reward"}

    @cached_property
    def bundle(self) -> Bundle:
        """Links to the newest of every component, laid out as the release."""
        bundle = Bundle(self.work / "bundle")
        for part in ("vocabulary", "index"):
            bundle.link(part, self.outs[part])
        for role in ROLES:
            bundle.follow(role, self.ledger.folder(role, self.inputs[role]) / "out")
        return bundle

    @cached_property
    def context(self) -> ServingContext:
        """What servers may use of what there is."""
        context = serving_context(self.bundle.folder, self.vocabulary, self.index, self.runtime)
        return replace(context, query_sids=QuerySids(lambda: self.server("tokenizer")))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The id space of prompts."""
        return Vocabulary.load(self.outs["vocabulary"])

    @cached_property
    def index(self) -> CatalogueIndex:
        """The catalogue, guided as it will be when it is served: what is fitted is fitted to that."""
        return CatalogueIndex.load(self.outs["index"], self.config.serving.node_vectors)

    @cached_property
    def tokenizer(self) -> TokenizerLearner:
        """Embeds items and texts."""
        return self.learner("tokenizer", TokenizerLearner, self.outs["tokenizer"] / "learner")  # type: ignore[type-abstract]

    # -- the log ---------------------------------------------------------------------------------------------

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """Every pair of query and item that the store knows of."""
        training = self.config.training
        return query_item_pairs(self.store, training.relevant_grade, half_life_days=training.half_life_days)

    @cached_property
    def split(self) -> Split:
        """What is held out, and what is not."""
        training = self.config.training
        return split_logs(self.store, training.held_out, training.relevant_grade, training.half_life_days)

    @cached_property
    def event_log(self) -> EventLog:
        """What was known of a shopper at any moment."""
        return EventLog.of_store(self.store)

    @cached_property
    def exposures(self) -> pl.DataFrame:
        """What was shown, and what came of it."""
        return exposures(newest(self.store.interactions()))

    @cached_property
    def drawn(self) -> DrawnSearches:
        """The held-out searches that the reward's lists are made of."""
        with self.progress.task("drawing held-out searches"):
            return draw_searches(self.split, self.store, lambda: self.event_log, self.config.training)

    @cached_property
    def judged(self) -> np.ndarray:
        """Which of them the generator's stages are judged by, i64."""
        return judged_rows(self.drawn, self.config.training.judged_searches, self.config.training.seed)

    @cached_property
    def corpus(self) -> Corpus:
        """The texts that supervised examples are made from."""
        training = self.config.training
        return Corpus.build(
            self.store.items(),
            self.split.positives(),
            self.index,
            self.vocabulary,
            self.tokenizer,
            cast(TokenizerServer, self.server("tokenizer")),
            cast(UserEncoderServer, self.server("user_encoder")),
            training.pseudo_queries,
            training.seed,
            self.progress,
        )
