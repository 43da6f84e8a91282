"""The stages that judge a generator by searches, and those in which it learns preferences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from onesearch.contracts.generator import GeneratorLearner, Guide, Origin, Phase
from onesearch.contracts.offers import Learner, Role, Server
from onesearch.contracts.reward import RewardServer
from onesearch.contracts.tokenizer import TokenizerServer
from onesearch.contracts.user_encoder import UserEncoderLearner, UserEncoderServer
from onesearch.errors import ArtifactError
from onesearch.training.candidates import pipeline_of_then, recall, search_all
from onesearch.training.examples import Examples
from onesearch.training.judging import Judged
from onesearch.training.preferences import Preferences
from onesearch.training.preferring import (
    Asker,
    NothingToPrefer,
    judged_queries,
    learnable,
    phase_1,
    phase_2,
    searches,
)
from onesearch.training.workshop import Workshop

_LISTS = "preferences.safetensors"
FIRST = 10


def judge(
    shop: Workshop, generator: Path | None = None, user_encoder: Path | None = None, guide: Guide = "guided"
) -> Judged | None:
    """Ask the generator exported to a folder (the newest one without) the held-out searches; None: there are
    none."""
    if not len(shop.judged):
        return None
    folders: dict[Role, Path | None] = {"generator": generator, "user_encoder": user_encoder}

    def server(role: Role) -> Server:
        return shop.server(role, folders.get(role))

    drawn, rows = shop.drawn, shop.judged.tolist()
    pipeline = pipeline_of_then(shop.split, shop.context, server, shop.config.training.reward_beams)
    vectors, found = search_all(
        pipeline,
        [drawn.queries[row] for row in rows],
        [drawn.states[row] for row in rows],
        [drawn.stand_ins[row] for row in rows],
        shop.progress,
        guide,
    )
    return Judged.of(drawn, shop.judged, vectors, found)


def prefer(
    shop: Workshop,
    phase: Phase,
    before: Judged | None,
    checkpoints: Path,
    out: Path,
    keep: Callable[[Learner, Path, Path], None],
) -> dict[str, Any]:
    """One phase of preference learning.

    What the phase made is kept, and stands in ``out`` as a generator's output does, unless held-out searches
    are worse by it beyond chance and ``[training] keep_worse`` is not set. ``before`` is how the generator
    answered them when the phase began.

    Returns:
        Figures: those of the learner; ``kept``; ``searches``, ``change`` (mean and standard error of each
        metric), ``reward`` of the first ten before and after, and ``reward_hacking``, whether the reward
        rose while the searches became worse. ``skipped`` says why where nothing was learnt.
    """
    learner = shop.learner("generator", GeneratorLearner)  # type: ignore[type-abstract]
    if not learner.learns_preferences:
        return {"skipped": f"generator '{shop.config.names['generator']}' does not learn preferences"}
    asker = _asker(shop)
    try:
        preferences = _preferences(shop, phase, asker, checkpoints)
    except NothingToPrefer as reason:
        return {"skipped": str(reason)}
    dim = 0 if preferences.histories is None else preferences.histories.values.shape[2]
    along, module = _module(shop, learner, dim, shop.bundle.folder / "learners" / "user_encoder")
    empty = Examples(shop.vocabulary, shop.index.live, preferences.vectors, ())
    examples = asker.guards(shop.index, empty, shop.config.training.seed)
    figures = learner.prefer(
        phase, preferences, examples, checkpoints, shop.progress, module, _origin(shop, dim)
    )
    keep(learner, checkpoints, out)
    if module is not None:
        (out / "user_encoder").mkdir()
        keep(along, checkpoints, out / "user_encoder")
    figures = {"lists": len(preferences.prompts), **figures, "kept": True}
    served = out / "user_encoder" / "served"
    after = None if before is None else judge(shop, out / "served", served if served.is_dir() else None)
    if before is not None and after is not None:
        after.save(out)
        figures |= _told(shop, before, after)
    return figures


def _told(shop: Workshop, before: Judged, after: Judged) -> dict[str, Any]:
    """What a phase did to held-out searches, by what shoppers chose and by the reward itself."""
    rewards = [_reward_of_first(shop, judged) for judged in (before, after)]
    worse, up = after.worse_than(before), bool(rewards[1] > rewards[0])
    if worse:
        hacked = ", though the reward rose: reward hacking" if up else ""
        kept = "it is kept (keep_worse)" if shop.config.training.keep_worse else "the weights before are kept"
        shop.progress.say(f"held-out searches are worse beyond chance{hacked}; {kept}")
    return {
        "searches": after.figures(),
        "change": after.change(before),
        "reward": {"before": rewards[0], "after": rewards[1]},
        "worse": worse,
        "reward_hacking": worse and up,
        "kept": not worse or shop.config.training.keep_worse,
    }


def _reward_of_first(shop: Workshop, judged: Judged) -> float:
    """Mean reward of the first ten of the generator's order."""
    reward, rows = cast(RewardServer, shop.server("reward")), shop.judged.tolist()
    queries = [shop.drawn.queries[row] for row in rows]
    states = [shop.drawn.states[row] for row in rows]
    items, log_probs = judged.found.items[:, :FIRST], judged.found.log_probs[:, :FIRST]
    totals, _ = reward.score(queries, judged.vectors, states, type(judged.found)(items, log_probs))
    return round(float(totals[items >= 0].mean()), 5)


def _asker(shop: Workshop) -> Asker:
    return Asker(
        shop.store,
        shop.split,
        lambda: shop.event_log,
        cast(TokenizerServer, shop.server("tokenizer")),
        cast(UserEncoderServer, shop.server("user_encoder")),
        shop.config.training.half_life_days,
    )


def _preferences(shop: Workshop, phase: Phase, asker: Asker, checkpoints: Path) -> Preferences:
    """Ranked lists: those of an interrupted run, or made now. Raises NothingToPrefer where there are none."""
    training, path = shop.config.training, checkpoints / _LISTS
    if path.exists():
        try:
            return Preferences.load(path)
        except ArtifactError:
            path.unlink()
    with shop.progress.task("reading what shoppers did"):
        exposures = learnable(shop.exposures, shop.split)
    if phase == "phase_2":
        made = phase_2(exposures, asker, shop.index, training.preference_lists, training.seed, shop.progress)
    else:
        try:
            asked = searches(exposures, shop.store.items(), training.preference_lists)
        except NothingToPrefer:
            asked = judged_queries(shop.split, training.preference_lists, training.seed)
        pipeline = recall(shop.context, shop.server, training.preference_beams)
        reward = cast(RewardServer, shop.server("reward"))
        made = phase_1(asked, asker, pipeline, reward, training.seed, shop.progress)
    made.save(path)
    return made


def _module(
    shop: Workshop, generator: GeneratorLearner, dim: int, folder: Path
) -> tuple[UserEncoderLearner, Any]:
    """The user encoder saved in a folder, and its module where the generator reads what that makes."""
    along = shop.learner("user_encoder", UserEncoderLearner, folder)  # type: ignore[type-abstract]
    width = generator.prefix_width
    return along, along.module(dim, width) if width and dim else None


def _origin(shop: Workshop, dim: int) -> Origin:
    """What supervised training ended with."""
    out = shop.outs["generator"]
    learner = shop.learner("generator", GeneratorLearner, out / "learner")  # type: ignore[type-abstract]
    along = out / "user_encoder" / "learner"
    folder = along if along.is_dir() else shop.outs["user_encoder"] / "learner"
    return Origin(learner, _module(shop, learner, dim, folder)[1])


def first_of(lists: dict[str, np.ndarray], shop: Workshop) -> Judged | None:
    """How the generator of supervised training answers the held-out searches, out of the reward's lists."""
    from onesearch.index import Candidates

    rows = shop.judged
    if not len(rows):
        return None
    found = Candidates(lists["items"][rows], lists["log_probs"][rows])
    return Judged.of(shop.drawn, rows, lists["query_vecs"][rows], found)
