"""Training from a store to a release: the stages in order.

tokenizer → vocabulary → index → user encoder → alignment → co-occurrence → personalisation → export → lists →
reward → release.

A stage that is done for exactly these inputs is skipped; an interrupted one goes on from its component's own
checkpoints. What every stage made stands in the work folder (:mod:`onesearch.training.ledger`) until the
release is written.

Personalisation trains the user encoder along. What it has become is saved beside the generator and exported
with it; lists, reward and release take that one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import polars as pl

from onesearch.compiling.runtime import Runtime
from onesearch.config import Config
from onesearch.contracts.generator import GeneratorLearner, Stage
from onesearch.contracts.offers import ROLES, Learner, Role, Server, ServingContext
from onesearch.contracts.reward import RewardLearner
from onesearch.contracts.tokenizer import TokenizerLearner, TokenizerServer
from onesearch.contracts.user_encoder import UserEncoderLearner, UserEncoderServer
from onesearch.data.schemas import brand_of
from onesearch.errors import OneSearchError, UsageError
from onesearch.index import ITEM_COLUMNS, CatalogueIndex
from onesearch.progress import Progress
from onesearch.releases.release import (
    QuerySids,
    Release,
    check_name,
    serving_context,
    write_release,
)
from onesearch.serving.fallback import FOLDER as FALLBACK
from onesearch.serving.fallback import write_most_clicked
from onesearch.shoppers.log import EventLog
from onesearch.training import sft
from onesearch.training.attribution import exposures, newest
from onesearch.training.bundle import Bundle
from onesearch.training.candidates import load_lists, make_lists
from onesearch.training.corpus import Corpus, embedded
from onesearch.training.drawing import draw_searches
from onesearch.training.impressions import Impressions, impressions_of
from onesearch.training.ledger import Ledger, StageRecord, locked
from onesearch.training.pairs import item_popularity, query_item_pairs
from onesearch.training.personal import NothingPersonal, personalisation
from onesearch.training.plan import PERSONAL, plan
from onesearch.training.pseudo import attribute_values
from onesearch.training.reports import StageReport, brief, plain_figures
from onesearch.training.split import Split, split_logs
from onesearch.vocabulary import Vocabulary

if TYPE_CHECKING:
    from onesearch.data.store import Store

WORK = ".work"
L = TypeVar("L", bound=Learner)


@dataclass(frozen=True)
class Trained:
    """What training ends with."""

    release: Release
    stages: tuple[StageReport, ...]


def train(
    store: Store,
    releases: Path,
    name: str,
    config: Config,
    progress: Progress,
    runtime: Runtime | None = None,
) -> Trained:
    """Fit every component on a store and write the release ``<releases>/<name>``.

    Idempotent: with the same inputs a second call goes on where the first one ended, or finds it done.

    Raises:
        UsageError: the store is empty, the name is not fit, or it names a release made from other inputs.
        OneSearchError: a stage failed; the message names it.
        KeyboardInterrupt: as it comes; calling again resumes.
    """
    check_name(name)
    work = releases / WORK / name
    with locked(work):
        return _Training(store, releases, name, config, progress, runtime or Runtime(), work).run()


@dataclass
class _Training:
    store: Store
    releases: Path
    name: str
    config: Config
    progress: Progress
    runtime: Runtime
    work: Path
    reports: list[StageReport] = field(default_factory=list)
    _outs: dict[str, Path] = field(default_factory=dict)
    _inputs: dict[str, str] = field(default_factory=dict)

    def run(self) -> Trained:
        """All stages."""
        self.ledger = Ledger(self.work)
        self._inputs = plan(self.config, self.store.fingerprint(), self.name)
        done = self._finished(self._inputs["release"])
        if done is not None:
            return done
        if len(self.store.items()) == 0:
            raise UsageError(f"{self.store.path}: the store has no items to train on")
        self._stage("tokenizer", self._fit_tokenizer)
        self._stage("vocabulary", self._train_vocabulary)
        self._stage("index", self._build_index)
        self._stage("user_encoder", self._fit_user_encoder)
        for stage in self.config.training.stages:
            self._stage(stage, self._personalise if stage == PERSONAL else self._fit_generator)
        self._stage("generator", self._export_generator)
        trained = self._outs["generator"] / "user_encoder"
        if trained.is_dir():
            self._bundle.follow("user_encoder", trained)
        self._stage("lists", self._make_lists)
        self._stage("reward", self._fit_reward)
        release = self._write_release()
        return Trained(release, tuple(self.reports))

    # -- running one stage -----------------------------------------------------------------------------------

    def _stage(self, stage: str, run: Callable[[str, Path, Path], dict[str, Any]]) -> None:
        inputs = self._inputs[stage]
        self._outs[stage] = self.ledger.folder(stage, inputs) / "out"
        record = self.ledger.done(stage, inputs)
        resumed = record is not None
        if record is None:
            checkpoints, draft = self.ledger.begin(stage, inputs)
            began = time.monotonic()
            try:
                figures = run(stage, checkpoints, draft)
                record = StageRecord(
                    inputs=inputs, seconds=round(time.monotonic() - began, 2), figures=plain_figures(figures)
                )
                self.ledger.finish(stage, record)
            except OSError as error:
                raise OneSearchError(f"stage {stage}: {error}") from error
            except Exception as error:
                # polars, safetensors and tokenizers tell of a full disk in exceptions of their own.
                if isinstance(error, OneSearchError) or "(os error " not in str(error):
                    raise
                raise OneSearchError(f"stage {stage}: {self.work}: {error}") from error
        self.reports.append(StageReport(stage, record.seconds, record.figures, resumed))
        known = " (done before)" if resumed else ""
        self.progress.say(f"{stage}: {record.seconds:.1f} s{known}  {brief(record.figures)}".rstrip())

    def _finished(self, inputs: str) -> Trained | None:
        """What an earlier run ended with. Raises UsageError where the name is taken by something else."""
        target = self.releases / self.name
        if not target.exists():
            return None
        record = self.ledger.done("release", inputs)
        if record is None:
            raise UsageError(
                f"release '{self.name}' exists already in {self.releases} and was made from another store or "
                "configuration: choose another --name, or remove it first"
            )
        release = Release.open(target, plugins=self.config.plugins)
        stages = [StageReport(**entry, resumed=True) for entry in record.figures["stages"]]
        self._drop_work()
        return Trained(release, tuple(stages))

    # -- what later stages read ------------------------------------------------------------------------------

    def _learner(self, role: Role, kind: type[L], folder: Path | None = None) -> L:
        offer, settings = self.config.component(role)
        folder = folder or self._outs[role] / "learner"
        return cast(L, offer.learner_class().load(folder, settings))

    def _new(self, role: Role, kind: type[L]) -> L:
        offer, settings = self.config.component(role)
        return cast(L, offer.learner_class()(settings))

    def _server(self, role: Role) -> Server:
        offer, settings = self.config.component(role)
        return offer.server_class().open(self._bundle.folder / role, self._context, settings)

    @cached_property
    def _bundle(self) -> Bundle:
        bundle = Bundle(self.work / "bundle")
        for part in ("vocabulary", "index"):
            bundle.link(part, self._outs[part])
        for role in ROLES:
            bundle.follow(role, self.ledger.folder(role, self._inputs[role]) / "out")
        return bundle

    @cached_property
    def _context(self) -> ServingContext:
        context = serving_context(self._bundle.folder, self._vocabulary, self._index, self.runtime)
        return replace(context, query_sids=QuerySids(lambda: self._server("tokenizer")))

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self._outs["vocabulary"])

    @cached_property
    def _index(self) -> CatalogueIndex:
        return CatalogueIndex.load(self._outs["index"])

    @cached_property
    def _tokenizer(self) -> TokenizerLearner:
        return self._learner("tokenizer", TokenizerLearner)  # type: ignore[type-abstract]

    @cached_property
    def _pairs(self) -> pl.DataFrame:
        training = self.config.training
        return query_item_pairs(self.store, training.relevant_grade, half_life_days=training.half_life_days)

    @cached_property
    def _split(self) -> Split:
        training = self.config.training
        return split_logs(self.store, training.held_out, training.relevant_grade, training.half_life_days)

    @cached_property
    def _event_log(self) -> EventLog:
        return EventLog.of_store(self.store)

    @cached_property
    def _exposures(self) -> pl.DataFrame:
        return exposures(newest(self.store.interactions()))

    @cached_property
    def _corpus(self) -> Corpus:
        training = self.config.training
        return Corpus.build(
            self.store.items(),
            self._split.positives(),
            self._index,
            self._vocabulary,
            self._tokenizer,
            cast(TokenizerServer, self._server("tokenizer")),
            cast(UserEncoderServer, self._server("user_encoder")),
            training.pseudo_queries,
            training.seed,
            self.progress,
        )

    # -- the stages ------------------------------------------------------------------------------------------

    def _fit_tokenizer(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self._new("tokenizer", TokenizerLearner)  # type: ignore[type-abstract]
        figures = learner.fit(self.store, checkpoints, self.progress)
        self._keep(learner, checkpoints, out)
        return figures

    def _train_vocabulary(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        items = self.store.items()
        seen = self._split.trained.filter(pl.col("weight") > 0)["query"].unique().sort()
        values = [value for values in attribute_values(items) for value in values]
        categories = [name for path in items["category"].to_list() for name in path or ()]
        texts = [
            *items["title"].to_list(),
            *dict.fromkeys(values),
            *dict.fromkeys(categories),
            *seen.to_list(),
        ]
        with self.progress.task("learning text tokens"):
            vocabulary = Vocabulary.train(texts, self._tokenizer.levels, self.config.training.vocabulary_size)
        vocabulary.save(out)
        return {"text_tokens": vocabulary.text_size, "levels": list(vocabulary.levels)}

    def _build_index(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        items = self.store.items()
        with self.progress.task("encoding items"):
            sids, vectors = self._tokenizer.encode_items(items)
        popularity = item_popularity(self.store, self.config.training.half_life_days)
        shown = items.with_columns(brand=brand_of()).select(ITEM_COLUMNS)
        index = CatalogueIndex.build(shown, sids, vectors, popularity, self._tokenizer.levels)
        index.save(out)
        self._tokenizer.codebooks().save(out)
        return {"items": len(index), "sids": index.live.tree.leaf_count}

    def _fit_user_encoder(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self._new("user_encoder", UserEncoderLearner)  # type: ignore[type-abstract]
        figures = learner.fit(self.store, checkpoints, self.progress)
        self._keep(learner, checkpoints, out)
        return figures

    def _generator(self, stage: str) -> GeneratorLearner:
        """The generator as the stage before left it; a new one for the first."""
        stages = self.config.training.stages
        at = stages.index(stage)
        if at == 0:
            return self._new("generator", GeneratorLearner)  # type: ignore[type-abstract]
        folder = self._outs[stages[at - 1]] / "learner"
        return self._learner("generator", GeneratorLearner, folder)  # type: ignore[type-abstract]

    def _fit_generator(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self._generator(stage)
        examples = {"alignment": sft.alignment, "cooccurrence": sft.cooccurrence}[stage](self._corpus)
        figures = learner.fit(cast(Stage, stage), examples, checkpoints, self.progress)
        learner.save(out / "learner")
        return figures

    def _personalise(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self._generator(stage)
        server = cast(UserEncoderServer, self._server("user_encoder"))
        try:
            examples = personalisation(
                self._corpus,
                self.store,
                self._split,
                lambda: self._event_log,
                server,
                self.config.training,
                self.progress,
            )
        except NothingPersonal as reason:
            if stage == self.config.training.stages[0]:
                raise UsageError(f"stage {stage}: {reason}, and no stage before it taught anything") from None
            learner.save(out / "learner")
            return {"skipped": str(reason)}
        user_encoder = self._learner("user_encoder", UserEncoderLearner)  # type: ignore[type-abstract]
        width, dim = learner.prefix_width, examples.history_dim
        module = user_encoder.module(dim, width) if width and dim else None
        figures = learner.fit(PERSONAL, examples, checkpoints, self.progress, user_module=module)
        learner.save(out / "learner")
        user_encoder.save(out / "user_encoder")
        return figures

    def _export_generator(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        """Export the generator, and the user encoder that was trained along, if one was."""
        last = self._outs[self.config.training.stages[-1]] / "learner"
        learner = self._learner("generator", GeneratorLearner, last)  # type: ignore[type-abstract]
        with self.progress.task("exporting the generator"):
            self._keep(learner, checkpoints, out)
        along = self._outs[PERSONAL] / "user_encoder" if PERSONAL in self._outs else None
        if along is not None and along.is_dir():
            user_encoder = self._learner("user_encoder", UserEncoderLearner, along)  # type: ignore[type-abstract]
            (out / "user_encoder").mkdir()
            self._keep(user_encoder, checkpoints, out / "user_encoder")
        size = sum(path.stat().st_size for path in (out / "served").rglob("*") if path.is_file())
        return {"mb": round(size / 1e6, 1)}

    def _make_lists(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        training = self.config.training
        with self.progress.task("drawing held-out searches"):
            drawn = draw_searches(self._split, self.store, lambda: self._event_log, training)
        beams = training.reward_beams
        return make_lists(self._split, drawn, self._context, self._server, beams, out, self.progress)

    def _fit_reward(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self._new("reward", RewardLearner)  # type: ignore[type-abstract]
        siblings: dict[str, Path] = {role: self._bundle.folder / role for role in ROLES if role != "reward"}
        lists = load_lists(
            self._outs["lists"], self.store.items(), self._index, self._split.trained, self._pairs, siblings
        )
        figures = learner.fit(lists, checkpoints, self.progress, self._impressions(learner))
        self._keep(learner, checkpoints, out)
        return figures

    def _impressions(self, learner: RewardLearner) -> Impressions | None:
        """The log, for a reward that reads it; None where it shows nothing."""
        if not learner.reads_impressions or not len(self._exposures):
            return None
        with self.progress.task("reading what shoppers were shown"):
            found = impressions_of(
                self._exposures,
                self.store.items(),
                self.store.relevance().collect(),
                lambda texts: embedded(self._tokenizer, texts, self.progress),
                lambda users, times: self._event_log.states_before(users, times),
                half_life_days=self.config.training.half_life_days,
                learnt_until=self._split.cutoff,
            )
        return found if len(found) else None

    def _write_release(self) -> Release:
        began = time.monotonic()
        stages = [
            {"stage": report.stage, "seconds": report.seconds, "figures": report.figures}
            for report in self.reports
        ]
        reports = self._bundle.folder / "reports"
        reports.mkdir()
        text = json.dumps(stages, indent=1, ensure_ascii=False)
        (reports / "training.json").write_text(text, encoding="utf-8")
        for role in ROLES:
            made = self._outs[role] / "reports"
            if made.is_dir():
                (reports / role).symlink_to(made.resolve())
        write_most_clicked(self._pairs, self._bundle.folder / FALLBACK)
        record = StageRecord(inputs=self._inputs["release"], seconds=0.0, figures={"stages": stages})
        _, draft = self.ledger.begin("release", record.inputs)
        draft.rmdir()
        draft.mkdir()
        metrics = {report.stage: report.figures for report in self.reports}
        # The record comes first: after a kill between the two the release is simply written again.
        self.ledger.finish("release", record)
        release = write_release(
            self.releases,
            self.name,
            self._bundle.folder,
            self.config,
            self.store.fingerprint(),
            str(self.store.path.resolve()),
            metrics,
        )
        self.progress.say(f"release: {time.monotonic() - began:.1f} s  {release.path}")
        self._drop_work()
        return release

    def _drop_work(self) -> None:
        """Remove what only an unfinished training needs; the ledger and the release's record stay."""
        shutil.rmtree(self.work / "bundle", ignore_errors=True)
        for stage, inputs in self._inputs.items():
            if stage != "release":
                shutil.rmtree(self.ledger.folder(stage, inputs), ignore_errors=True)

    def _keep(self, learner: Learner, checkpoints: Path, out: Path) -> None:
        """Save and export a learner, and keep the report it wrote to ``report/`` in its work folder."""
        learner.save(out / "learner")
        learner.export(out / "served")
        for part in ("learner", "served"):
            (out / part).mkdir(exist_ok=True)
        if (checkpoints / "report").is_dir():
            shutil.copytree(checkpoints / "report", out / "reports")
