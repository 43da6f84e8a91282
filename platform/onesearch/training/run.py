"""Training from a store to a release: the stages in order.

tokenizer → vocabulary → index → user encoder → alignment → co-occurrence → export → lists → reward → release.

A stage that is done for exactly these inputs is skipped; an interrupted one goes on from its component's own
checkpoints. What every stage made stands in the work folder (:mod:`onesearch.training.ledger`) until the
release is written.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import polars as pl

from onesearch.compiling.runtime import Runtime
from onesearch.config import Config
from onesearch.contracts.generator import GeneratorLearner, Stage
from onesearch.contracts.offers import ROLES, Learner, Role, Server, ServingContext
from onesearch.contracts.reward import RewardLearner
from onesearch.contracts.tokenizer import TokenizerLearner, TokenizerServer
from onesearch.contracts.user_encoder import UserEncoderLearner, UserEncoderServer
from onesearch.data.schemas import brand_of
from onesearch.errors import ConfigError, OneSearchError, UsageError
from onesearch.index import ITEM_COLUMNS, CatalogueIndex
from onesearch.progress import Progress
from onesearch.releases.release import (
    QuerySids,
    Release,
    check_name,
    platform_version,
    serving_context,
    write_release,
)
from onesearch.serving.fallback import FOLDER as FALLBACK
from onesearch.serving.fallback import write_most_clicked
from onesearch.training import sft
from onesearch.training.candidates import load_lists, make_lists
from onesearch.training.corpus import Corpus
from onesearch.training.ledger import Ledger, StageRecord, hash_of, locked
from onesearch.training.pairs import item_popularity, query_item_pairs
from onesearch.training.pseudo import attribute_values
from onesearch.training.split import Split, split_logs
from onesearch.vocabulary import Vocabulary

if TYPE_CHECKING:
    from onesearch.data.store import Store

WORK = ".work"
L = TypeVar("L", bound=Learner)


@dataclass(frozen=True)
class StageReport:
    """One line of the table that training ends with."""

    stage: str
    seconds: float
    figures: dict[str, Any]
    resumed: bool
    """Whether it was done by an earlier run."""


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
        inputs = self._plan()
        done = self._finished(inputs["release"])
        if done is not None:
            return done
        if len(self.store.items()) == 0:
            raise UsageError(f"{self.store.path}: the store has no items to train on")
        self._stage("tokenizer", self._fit_tokenizer)
        self._stage("vocabulary", self._train_vocabulary)
        self._stage("index", self._build_index)
        self._stage("user_encoder", self._fit_user_encoder)
        for stage in self.config.training.stages:
            self._stage(stage, self._fit_generator)
        self._stage("generator", self._export_generator)
        self._stage("lists", self._make_lists)
        self._stage("reward", self._fit_reward)
        release = self._write_release()
        return Trained(release, tuple(self.reports))

    # -- what goes into each stage ---------------------------------------------------------------------------

    def _plan(self) -> dict[str, str]:
        """The hash of all that goes into each stage, upstream stages included."""
        training = self.config.training
        stages = training.stages
        unknown = [stage for stage in stages if stage not in get_args(Stage)]
        if unknown or not stages or len(set(stages)) != len(stages):
            raise ConfigError(
                f"{self.config.source}: [training] stages = {list(stages)}: "
                f"some of {list(get_args(Stage))} belong here, each once"
            )
        split = [training.seed, training.held_out, training.relevant_grade, training.half_life_days]
        store = [self.store.fingerprint(), platform_version()]
        plan = {"tokenizer": hash_of(store, self._component("tokenizer"))}
        plan["vocabulary"] = hash_of(plan["tokenizer"], split, training.vocabulary_size)
        plan["index"] = hash_of(plan["tokenizer"], training.half_life_days)
        plan["user_encoder"] = hash_of(plan["vocabulary"], plan["index"], self._component("user_encoder"))
        upstream = hash_of(plan["user_encoder"], split, training.pseudo_queries, self._component("generator"))
        for stage in stages:
            upstream = plan[stage] = hash_of(upstream, stage)
        plan["generator"] = hash_of(upstream, "export")
        plan["lists"] = hash_of(plan["generator"], training.reward_queries, training.reward_beams)
        plan["reward"] = hash_of(plan["lists"], self._component("reward"))
        plan["release"] = hash_of(plan["reward"], self.name, self.config.dump())
        self._inputs = plan
        return plan

    def _component(self, role: Role) -> list[Any]:
        name = self.config.names[role]
        origin = self.config.plugins.distribution_of(role, name)
        return [role, name, *origin, self.config.settings[role].model_dump(mode="json")]

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
                    inputs=inputs, seconds=round(time.monotonic() - began, 2), figures=_plain(figures)
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

    def _learner(self, role: Role, kind: type[L], stage: str | None = None) -> L:
        offer, settings = self.config.component(role)
        folder = self._outs[stage or role] / "learner"
        return cast(L, offer.learner_class().load(folder, settings))

    def _new(self, role: Role, kind: type[L]) -> L:
        offer, settings = self.config.component(role)
        return cast(L, offer.learner_class()(settings))

    def _server(self, role: Role) -> Server:
        offer, settings = self.config.component(role)
        return offer.server_class().open(self._bundle / role, self._context, settings)

    @cached_property
    def _bundle(self) -> Path:
        """A folder laid out as the release, of links to what the stages made."""
        bundle = self.work / "bundle"
        if bundle.exists():
            shutil.rmtree(bundle)
        (bundle / "learners").mkdir(parents=True)
        for part in ("vocabulary", "index"):
            (bundle / part).symlink_to(self._outs[part].resolve())
        for role in ROLES:
            out = self.ledger.folder(role, self._inputs[role]) / "out"
            (bundle / role).symlink_to((out / "served").resolve())
            (bundle / "learners" / role).symlink_to((out / "learner").resolve())
        return bundle

    @cached_property
    def _context(self) -> ServingContext:
        context = serving_context(self._bundle, self._vocabulary, self._index, self.runtime)
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

    def _fit_generator(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        stages = self.config.training.stages
        at = stages.index(stage)
        if at == 0:
            learner = self._new("generator", GeneratorLearner)  # type: ignore[type-abstract]
        else:
            learner = self._learner("generator", GeneratorLearner, stages[at - 1])  # type: ignore[type-abstract]
        make = {"alignment": sft.alignment, "cooccurrence": sft.cooccurrence}.get(stage)
        if make is None:
            raise ConfigError(f"{self.config.source}: [training] stages: {stage} has no examples yet")
        examples = make(self._corpus)
        figures = learner.fit(cast(Stage, stage), examples, checkpoints, self.progress)
        learner.save(out / "learner")
        return figures

    def _export_generator(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        last = self.config.training.stages[-1]
        learner = self._learner("generator", GeneratorLearner, last)  # type: ignore[type-abstract]
        with self.progress.task("exporting the generator"):
            self._keep(learner, checkpoints, out)
        size = sum(path.stat().st_size for path in (out / "served").rglob("*") if path.is_file())
        return {"mb": round(size / 1e6, 1)}

    def _make_lists(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        return make_lists(self._split, self._context, self._server, self.config.training, out, self.progress)

    def _fit_reward(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self._new("reward", RewardLearner)  # type: ignore[type-abstract]
        siblings: dict[str, Path] = {role: self._bundle / role for role in ROLES if role != "reward"}
        lists = load_lists(
            self._outs["lists"], self.store.items(), self._index, self._split.trained, self._pairs, siblings
        )
        figures = learner.fit(lists, checkpoints, self.progress)
        self._keep(learner, checkpoints, out)
        return figures

    def _write_release(self) -> Release:
        began = time.monotonic()
        stages = [
            {"stage": report.stage, "seconds": report.seconds, "figures": report.figures}
            for report in self.reports
        ]
        reports = self._bundle / "reports"
        reports.mkdir()
        text = json.dumps(stages, indent=1, ensure_ascii=False)
        (reports / "training.json").write_text(text, encoding="utf-8")
        for role in ROLES:
            made = self._outs[role] / "reports"
            if made.is_dir():
                (reports / role).symlink_to(made.resolve())
        write_most_clicked(self._pairs, self._bundle / FALLBACK)
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
            self._bundle,
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


def brief(figures: dict[str, Any], limit: int = 6) -> str:
    """The first plain numbers and words of a stage's figures on one line."""
    shown: list[str] = []
    for key, value in figures.items():
        name = key.replace("_", " ")
        if key == "seconds":
            continue
        if isinstance(value, float):
            shown.append(f"{name} {value:.4g}")
        elif isinstance(value, int | str) and not isinstance(value, bool):
            shown.append(f"{name} {value}")
    return " · ".join(shown[:limit])


def _plain(figures: Any) -> dict[str, Any]:
    """Figures as JSON holds them (numpy numbers become plain ones)."""

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    return cast(dict[str, Any], json.loads(json.dumps(figures, default=plain)))
