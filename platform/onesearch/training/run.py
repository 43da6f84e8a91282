"""Training from a store to a release: the stages in order.

tokenizer → vocabulary → index → user encoder → alignment → co-occurrence → personalisation → export → lists →
reward → phase 1 → phase 2 → release.

A stage that is done for exactly these inputs is skipped; an interrupted one goes on from its component's own
checkpoints. What every stage made stands in the work folder (:mod:`onesearch.training.ledger`) until the
release is written.

Personalisation and the phases train the user encoder along. What it has become is saved beside the generator
and exported with it; later stages and the release take that one.

A training may continue a release: tokenizer, vocabulary, user encoder and generator are those of the release,
the index is of the store's catalogue by the release's codebooks, and personalisation is refreshed for a while
in place of the three supervised stages.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from safetensors.numpy import load_file

from onesearch.compiling.runtime import Runtime
from onesearch.config import Config
from onesearch.contracts.generator import GeneratorLearner, Phase, Stage
from onesearch.contracts.offers import ROLES, Learner
from onesearch.contracts.reward import RewardLearner
from onesearch.contracts.tokenizer import TokenizerLearner
from onesearch.contracts.user_encoder import UserEncoderLearner, UserEncoderServer
from onesearch.data.schemas import brand_of
from onesearch.errors import OneSearchError, UsageError
from onesearch.index import ITEM_COLUMNS, CatalogueIndex
from onesearch.progress import Progress
from onesearch.releases.release import Release, check_name, write_release
from onesearch.serving.fallback import FOLDER as FALLBACK
from onesearch.serving.fallback import write_most_clicked
from onesearch.training import sft
from onesearch.training.candidates import LISTS, load_lists, make_lists
from onesearch.training.corpus import embedded
from onesearch.training.effects import effects
from onesearch.training.impressions import Impressions, impressions_of
from onesearch.training.judging import Judged
from onesearch.training.ledger import StageRecord, locked
from onesearch.training.pairs import item_popularity
from onesearch.training.personal import NothingPersonal, personalisation
from onesearch.training.phases import first_of, judge, prefer
from onesearch.training.plan import AGAIN, PERSONAL, REFRESH, phases_of, plan, stages_of
from onesearch.training.pseudo import attribute_values
from onesearch.training.reports import StageReport, brief
from onesearch.training.workshop import Workshop
from onesearch.vocabulary import Vocabulary

if TYPE_CHECKING:
    from onesearch.data.store import Store

WORK = ".work"


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
    start_from: Release | None = None,
) -> Trained:
    """Fit every component on a store and write the release ``<releases>/<name>``.

    Idempotent: with the same inputs a second call goes on where the first one ended, or finds it done. With
    the same inputs and threads the release has the same content, wherever it was interrupted, unless a limit
    in minutes cut a stage.

    Args:
        start_from: the release to continue. Its tokenizer and user encoder, with their settings, its
            vocabulary and the weights of its generator are taken over; ``config`` says the rest.

    Raises:
        UsageError: the store is empty, the name is not fit, it names a release made from other inputs, or
            ``config`` names another tokenizer, user encoder or generator than the release to continue.
        OneSearchError: a stage failed; the message names it.
        KeyboardInterrupt: as it comes; calling again resumes.
    """
    check_name(name)
    if start_from is not None:
        config = continued(config, start_from)
    work = releases / WORK / name
    with locked(work):
        return _Training(
            store, releases, name, config, progress, runtime or Runtime(), work, start_from
        ).run()


def continued(config: Config, release: Release) -> Config:
    """The configuration with the tokenizer and user encoder of a release, as they were trained.

    Raises UsageError where it names another component than the release has.
    """
    release.require_plugins()
    settings = dict(config.settings)
    for role in ("tokenizer", "user_encoder", "generator"):
        own = release.manifest.components[role].component
        if config.names[role] != own:
            raise UsageError(
                f"{config.source}: [{role}] name = '{config.names[role]}', but release '{release.name}' has "
                f"'{own}': a training that continues a release keeps its {role.replace('_', ' ')}"
            )
        if role != "generator":
            settings[role] = release.settings(role)
    return replace(config, settings=settings)


class _Training(Workshop):
    def run(self) -> Trained:
        """All stages."""
        start = None if self.start is None else self.start.manifest.content_hash()
        self.inputs = plan(self.config, self.store.fingerprint(), self.name, start)
        done = self._finished(self.inputs["release"])
        if done is not None:
            return done
        if len(self.store.items()) == 0:
            raise UsageError(f"{self.store.path}: the store has no items to train on")
        anew = self.start is None
        self._stage("tokenizer", self._fit_tokenizer if anew else self._take_tokenizer)
        self._stage("vocabulary", self._train_vocabulary if anew else self._take_vocabulary)
        self._stage("index", self._build_index)
        self._stage("user_encoder", self._fit_user_encoder)
        for stage in stages_of(self.config, start):
            self._stage(stage, self._personalise if stage in (PERSONAL, REFRESH) else self._fit_generator)
        self._stage("generator", self._export_generator)
        self._follow_user_encoder(self.outs["generator"])
        self._stage("lists", self._make_lists)
        self._stage("reward", self._fit_reward)
        self._learn_preferences()
        release = self._write_release()
        return Trained(release, tuple(self.reports))

    def _learn_preferences(self) -> None:
        """The phases; each goes on from the last one that was kept."""
        kept = False
        for phase in phases_of(self.config):
            self._stage(phase, self._prefer)
            if self.figures(phase).get("kept"):
                kept = True
                self.bundle.follow("generator", self.outs[phase])
                self._follow_user_encoder(self.outs[phase])
        if kept and self.config.training.refit_reward:
            self._stage(AGAIN["lists"], self._make_lists)
            self._stage(AGAIN["reward"], self._fit_reward)
            self.bundle.follow("reward", self.outs[AGAIN["reward"]])

    def _follow_user_encoder(self, out: Path) -> None:
        trained = out / "user_encoder"
        if trained.is_dir():
            self.bundle.follow("user_encoder", trained)

    # -- running one stage -----------------------------------------------------------------------------------

    def _stage(self, stage: str, run: Callable[[str, Path, Path], dict[str, Any]]) -> None:
        inputs = self.inputs[stage]
        self.outs[stage] = self.ledger.folder(stage, inputs) / "out"
        try:
            record, resumed = self.ledger.run(stage, inputs, partial(run, stage))
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

    # -- the stages ------------------------------------------------------------------------------------------

    def _fit_tokenizer(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self.new("tokenizer", TokenizerLearner)  # type: ignore[type-abstract]
        figures = learner.fit(self.store, checkpoints, self.progress)
        self._keep(learner, checkpoints, out)
        return figures

    def _train_vocabulary(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        items = self.store.items()
        seen = self.split.trained.filter(pl.col("weight") > 0)["query"].unique().sort()
        values = [value for values in attribute_values(items) for value in values]
        categories = [name for path in items["category"].to_list() for name in path or ()]
        texts = [
            *items["title"].to_list(),
            *dict.fromkeys(values),
            *dict.fromkeys(categories),
            *seen.to_list(),
        ]
        with self.progress.task("learning text tokens"):
            vocabulary = Vocabulary.train(texts, self.tokenizer.levels, self.config.training.vocabulary_size)
        vocabulary.save(out)
        # When the embeddings' knowledge of the log ends; trainings that continue the release ask for it.
        until = None if self.split.cutoff is None else self.split.cutoff.isoformat()
        told = {"text_tokens": vocabulary.text_size, "levels": list(vocabulary.levels)}
        return told | {"learnt_until": until}

    def _take_tokenizer(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        assert self.start is not None, "a training that continues a release"
        shutil.copytree(self.start.path / "learners" / "tokenizer", out / "learner")
        shutil.copytree(self.start.path / "tokenizer", out / "served")
        return {"from": self.start.name}

    def _take_vocabulary(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        assert self.start is not None, "a training that continues a release"
        shutil.copytree(self.start.path / "vocabulary", out, dirs_exist_ok=True)
        told = self.start.manifest.metrics.get("vocabulary", {})
        return {"from": self.start.name, "learnt_until": told.get("learnt_until")}

    def _build_index(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        items = self.store.items()
        with self.progress.task("encoding items"):
            sids, vectors = self.tokenizer.encode_items(items)
        popularity = item_popularity(self.store, self.config.training.half_life_days)
        shown = items.with_columns(brand=brand_of()).select(ITEM_COLUMNS)
        index = CatalogueIndex.build(shown, sids, vectors, popularity, self.tokenizer.levels)
        index.save(out)
        codebooks = self.tokenizer.codebooks()
        codebooks.save(out)
        with self.progress.task("fitting the remainders of nodes"):
            index.fit_guide(codebooks, self.config.training.seed).save_books(out)
        return {"items": len(index), "sids": index.live.tree.leaf_count}

    def _fit_user_encoder(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        """What does not need the generator; of a release that is continued, what was trained along stays."""
        if self.start is None:
            learner = self.new("user_encoder", UserEncoderLearner)  # type: ignore[type-abstract]
        else:
            folder = self.start.path / "learners" / "user_encoder"
            learner = self.learner("user_encoder", UserEncoderLearner, folder)  # type: ignore[type-abstract]
        figures = learner.fit(self.store, checkpoints, self.progress)
        self._keep(learner, checkpoints, out)
        return figures

    def _generator(self, stage: str | None) -> GeneratorLearner:
        """The generator as it was before a stage (None: after all of them)."""
        stages = self._stages
        at = len(stages) if stage is None else stages.index(stage)
        if at:
            folder = self.outs[stages[at - 1]] / "learner"
        elif self.start is not None:
            folder = self.start.path / "learners" / "generator"
        else:
            return self.new("generator", GeneratorLearner)  # type: ignore[type-abstract]
        return self.learner("generator", GeneratorLearner, folder)  # type: ignore[type-abstract]

    @property
    def _stages(self) -> tuple[str, ...]:
        return stages_of(self.config, None if self.start is None else self.start.name)

    def _fit_generator(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self._generator(stage)
        examples = {"alignment": sft.alignment, "cooccurrence": sft.cooccurrence}[stage](self.corpus)
        figures = learner.fit(cast(Stage, stage), examples, checkpoints, self.progress)
        learner.save(out / "learner")
        if stage != self._stages[-1] and len(self.judged):
            # The last stage is judged by the lists that the reward learns from.
            learner.export(checkpoints / "served")
            figures |= self._searched(stage, judge(self, checkpoints / "served"), out)
        return figures

    def _personalise(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self._generator(stage)
        server = cast(UserEncoderServer, self.server("user_encoder"))
        try:
            examples = personalisation(
                self.corpus,
                self.store,
                self.split,
                lambda: self.event_log,
                server,
                self.config.training,
                self.progress,
            )
        except NothingPersonal as reason:
            if self.start is None and stage == self._stages[0]:
                raise UsageError(f"stage {stage}: {reason}, and no stage before it taught anything") from None
            learner.save(out / "learner")
            return {"skipped": str(reason)}
        user_encoder = self.learner("user_encoder", UserEncoderLearner)  # type: ignore[type-abstract]
        width, dim = learner.prefix_width, examples.history_dim
        module = user_encoder.module(dim, width) if width and dim else None
        figures = learner.fit(cast(Stage, stage), examples, checkpoints, self.progress, user_module=module)
        learner.save(out / "learner")
        user_encoder.save(out / "user_encoder")
        return figures

    def _export_generator(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        """Export the generator, and the user encoder that was trained along, if one was."""
        learner = self._generator(None)
        with self.progress.task("exporting the generator"):
            self._keep(learner, checkpoints, out)
        personal = next((stage for stage in self._stages if stage in (PERSONAL, REFRESH)), None)
        along = None if personal is None else self.outs[personal] / "user_encoder"
        if along is not None and along.is_dir():
            user_encoder = self.learner("user_encoder", UserEncoderLearner, along)  # type: ignore[type-abstract]
            (out / "user_encoder").mkdir()
            self._keep(user_encoder, checkpoints, out / "user_encoder")
        size = sum(path.stat().st_size for path in (out / "served").rglob("*") if path.is_file())
        return {"mb": round(size / 1e6, 1)}

    def _make_lists(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        beams = self.config.training.reward_beams
        figures = make_lists(self.split, self.drawn, self.context, self.server, beams, out, self.progress)
        if stage == "lists":
            figures |= self._searched(self._stages[-1] if self._stages else "", self._first(out), None)
        if stage == "lists" and len(self.judged):
            alone = judge(self, guide="prior_only")
            figures["prior_only"] = {} if alone is None else alone.figures()
        return figures

    def _fit_reward(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        learner = self.new("reward", RewardLearner)  # type: ignore[type-abstract]
        made = self.outs["lists" if stage == "reward" else AGAIN["lists"]]
        lists = load_lists(
            made, self.store.items(), self.index, self.split.trained, self.pairs, self.siblings
        )
        figures = learner.fit(lists, checkpoints, self.progress, self._impressions(learner))
        self._keep(learner, checkpoints, out)
        return figures

    def _prefer(self, stage: str, checkpoints: Path, out: Path) -> dict[str, Any]:
        return prefer(self, cast(Phase, stage), self._answers(stage), checkpoints, out, self._keep)

    def _answers(self, stage: str) -> Judged | None:
        """How the generator answers the held-out searches when a phase begins."""
        phases = phases_of(self.config)
        before = phases[: phases.index(stage)]
        kept = [phase for phase in before if self.figures(phase).get("kept")]
        if not len(self.judged):
            return None
        return Judged.load(self.outs[kept[-1]]) if kept else self._first(self.outs["lists"])

    def _first(self, lists: Path) -> Judged | None:
        """How the generator of supervised training answers them."""
        return first_of(load_file(lists / LISTS), self)

    def _searched(self, stage: str, judged: Judged | None, out: Path | None) -> dict[str, Any]:
        """Figures of a supervised stage's searches, and what changed since the stage before."""
        if judged is None:
            return {}
        if out is not None:
            judged.save(out)
        figures: dict[str, Any] = {"searches": judged.figures()}
        at = self._stages.index(stage) if stage in self._stages else 0
        if at:
            figures["change"] = judged.change(Judged.load(self.outs[self._stages[at - 1]]))
        return figures

    def _impressions(self, learner: RewardLearner) -> Impressions | None:
        """The log, for a reward that reads it; None where it shows nothing."""
        if not learner.reads_impressions or not len(self.exposures):
            return None
        until = cast(str | None, self.figures("vocabulary").get("learnt_until"))
        with self.progress.task("reading what shoppers were shown"):
            found = impressions_of(
                self.exposures,
                self.store.items(),
                self.store.relevance().collect(),
                lambda texts: embedded(self.tokenizer, texts, self.progress),
                lambda users, times: self.event_log.states_before(users, times),
                limit=self.config.training.reward_impressions,
                half_life_days=self.config.training.half_life_days,
                learnt_until=None if until is None else datetime.fromisoformat(until),
            )
        return found if len(found) else None

    def _write_release(self) -> Release:
        began = time.monotonic()
        stages = [
            {"stage": report.stage, "seconds": report.seconds, "figures": report.figures}
            for report in self.reports
        ]
        reports = self.bundle.folder / "reports"
        reports.mkdir()
        text = json.dumps(stages, indent=1, ensure_ascii=False)
        (reports / "training.json").write_text(text, encoding="utf-8")
        text = json.dumps(effects(self.reports), indent=1, ensure_ascii=False)
        (reports / "effects.json").write_text(text, encoding="utf-8")
        for role in ROLES:
            made = self.outs[AGAIN.get(role, role) if AGAIN.get(role) in self.outs else role] / "reports"
            if made.is_dir():
                (reports / role).symlink_to(made.resolve())
        write_most_clicked(self.pairs, self.bundle.folder / FALLBACK)
        record = StageRecord(inputs=self.inputs["release"], seconds=0.0, figures={"stages": stages})
        _, draft = self.ledger.begin("release", record.inputs)
        draft.rmdir()
        draft.mkdir()
        metrics = {report.stage: report.figures for report in self.reports}
        # The record comes first: after a kill between the two the release is simply written again.
        self.ledger.finish("release", record)
        release = write_release(
            self.releases,
            self.name,
            self.bundle.folder,
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
        for stage, inputs in self.inputs.items():
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
