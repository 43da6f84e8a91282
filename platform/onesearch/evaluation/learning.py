"""``onesearch bench learn``: what each way of learning is worth in orders, in a simulated A/B.

Everything in it is simulated. Shoppers of a demo store, whose hidden tastes are the truth, search on the day
after the log; every arm answers the same requests and meets the same luck
(:mod:`onesearch.evaluation.trial`). Arms that look at shoppers are given what the log knows of each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onesearch.compiling.runtime import Runtime
from onesearch.config import Config, load_config
from onesearch.contracts.offers import Role
from onesearch.data.importers.demo import DemoSize, store_or_demo
from onesearch.data.simulation import ORACLE, RANDOM, Requests, SimulatedShoppers
from onesearch.data.store import Store
from onesearch.errors import UsageError
from onesearch.evaluation.ablation import DEMO
from onesearch.evaluation.arms import Arm, Asked, Releases, of_rankers
from onesearch.evaluation.baselines import Parts, Popular, Ranker
from onesearch.evaluation.cascade import Cascade
from onesearch.evaluation.known import Known
from onesearch.evaluation.trial import Trial
from onesearch.progress import Progress, SilentProgress
from onesearch.releases.release import Release
from onesearch.serving.pipeline import Pipeline
from onesearch.shoppers.log import EventLog
from onesearch.training.run import train

CASCADE, POPULAR = "cascade", "popular"


@dataclass(frozen=True)
class Way:
    """One way of learning: a reward and phases of preference learning, after the same supervised training."""

    release: str
    reward: str
    phases: tuple[str, ...] = ()


SFT = Way("sft", "relevance")
WAYS = (
    SFT,
    Way("pars", "pars"),
    Way("phase-1", "pars", ("phase_1",)),
    Way("phase-2", "pars", ("phase_2",)),
    Way("whole", "pars", ("phase_1", "phase_2")),
)
ARMS = (
    ("SFT", "sft", False),
    ("SFT + relevance", "sft", True),
    ("SFT + pars", "pars", True),
    ("SFT + phase 1", "phase-1", False),
    ("SFT + phase 2", "phase-2", False),
    ("SFT + phases 1, 2", "whole", False),
    ("SFT + phase 1 + pars", "phase-1", True),
    ("SFT + phase 2 + pars", "phase-2", True),
    ("whole: SFT + phases 1, 2 + pars", "whole", True),
)
"""Name of an arm, its release, and whether the release's reward reranks."""


def run(
    store: Path | None = None,
    config: Path | None = None,
    release: Sequence[Path] = (),
    seeds: int = 5,
    searches: int = 2_000,
    lucks: int = 8,
    work: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Orders of simulated shoppers by each way of learning, against the cascade.

    Args:
        store: a simulated shop; without it the small one is made.
        config: the configuration that all arms are trained by; the demo's without it.
        release: releases to compare instead of training the arms; the cascade is built from the first one's
            embeddings. Each is shown with and without its reward.
        seeds: draws of requests and luck.
        searches: requests of each seed.
        lucks: how often the shoppers of a seed meet each arm's lists, with other luck.
        work: folder that keeps what was trained, so that an interrupted run goes on.

    Returns:
        ``rows``, see :meth:`onesearch.evaluation.trial.Trial.rows`; ``against``, ``by_seed`` (orders a search
        of each arm and seed), ``tuned`` (what the cascade was fitted on), ``searches``, ``seeds``, ``lucks``
        and ``simulated``.
    """
    if min(seeds, searches, lucks) < 1:
        raise UsageError("--seeds, --searches and --lucks: at least 1")
    progress = progress or SilentProgress()
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        opened = store_or_demo(store, folder, progress, DemoSize.small)
        shoppers = SimulatedShoppers.open(opened)
        if release:
            arms = _given([Release.open(path) for path in release])
        else:
            settings = load_config(config or DEMO)
            arms = trained(opened, folder / "releases", settings, progress)
        return _compare(opened, shoppers, arms, seeds, searches, lucks, progress)


def trained(store: Store, releases: Path, config: Config, progress: Progress) -> list[Arm]:
    """Every arm's release, trained where it is missing: all go on from the first one's generator."""
    made: dict[str, Release] = {}
    for way in WAYS:
        progress.say(f"release: {way.release}")
        start = made.get(SFT.release)
        made[way.release] = train(
            store, releases, way.release, configured(config, way), progress, start_from=start
        ).release
    return [Arm(name, made[release], reranked) for name, release, reranked in ARMS]


def configured(config: Config, way: Way) -> Config:
    """The configuration of an arm. Phases are kept whatever they did, since that is what is measured."""
    own = with_component(config, "reward", way.reward)
    changes = {"preference": way.phases, "keep_worse": True, "refresh": False}
    return replace(own, training=own.training.model_copy(update=changes))


def with_component(config: Config, role: Role, name: str) -> Config:
    """The configuration with another component, of its default settings; as it is where it has it already."""
    if config.names[role] == name:
        return config
    settings = config.plugins.offer(role, name).config()
    return replace(config, names={**config.names, role: name}, settings={**config.settings, role: settings})


def _given(releases: Sequence[Release]) -> list[Arm]:
    return [
        arm
        for release in releases
        for arm in (Arm(f"{release.name}, no reward", release, False), Arm(release.name, release))
    ]


def _compare(
    store: Store,
    shoppers: SimulatedShoppers,
    arms: Sequence[Arm],
    seeds: int,
    searches: int,
    lucks: int,
    progress: Progress,
) -> dict[str, Any]:
    base, runtime = arms[0].release, Runtime(threads=arms[0].release.config.serving.threads)
    pipeline = Pipeline.of_release(base, runtime)
    parts = Parts(Known.of(store, base.index, pipeline.tokenizer, base.config.training))
    rankers: Mapping[str, Ranker] = {POPULAR: Popular(parts), CASCADE: Cascade(parts, progress)}
    releases, log = Releases(arms, runtime), EventLog.of_store(store)
    trial = Trial(shoppers, base.index.items["item_id"].to_list(), lucks)
    for seed in range(seeds):
        requests = shoppers.requests(searches, seed)
        asked = _asked(requests, log)
        answers = of_rankers(rankers, asked, progress) | releases.answer(asked, progress)
        with progress.task(f"shoppers act, seed {seed}"):
            trial.add(requests, answers, seed)
    names = [ORACLE, RANDOM, POPULAR, CASCADE, *(arm.name for arm in arms)]
    return {
        "rows": trial.rows(CASCADE, names),
        "against": CASCADE,
        "by_seed": {name: [round(value, 6) for value in trial.by_seed[name]] for name in names},
        "tuned": {CASCADE: rankers[CASCADE].tuned},
        "searches": searches,
        "seeds": seeds,
        "lucks": lucks,
        "simulated": True,
    }


def _asked(requests: Requests, log: EventLog) -> Asked:
    made = requests.requests
    moments = np.array([int(one.ts.timestamp()) for one in made], np.int64)
    return Asked([one.query for one in made], log.states_before([one.user_id for one in made], moments))
