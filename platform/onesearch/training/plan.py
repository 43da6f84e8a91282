"""What goes into each stage of a training, as hashes: a stage whose hash is in the ledger is done."""

from __future__ import annotations

from typing import Any, get_args

from onesearch.config import Config
from onesearch.contracts.generator import Phase, Stage
from onesearch.contracts.offers import Role
from onesearch.errors import ConfigError
from onesearch.releases.release import platform_version
from onesearch.training.ledger import hash_of

PERSONAL: Stage = "personalisation"
REFRESH: Stage = "refresh"
AGAIN = {"lists": "lists_again", "reward": "reward_again"}
"""The stages that fit the reward once more, after the phases of preference learning."""


def stages_of(config: Config, start: str | None = None) -> tuple[str, ...]:
    """The stages of supervised training, in order: of a training from nothing, or from a release.

    Raises ConfigError where ``[training] stages`` is not a choice of the stages there are.
    """
    if start is not None:
        return (REFRESH,) if config.training.refresh else ()
    stages, known = config.training.stages, [stage for stage in get_args(Stage) if stage != REFRESH]
    if not stages:
        raise ConfigError(f"{config.source}: [training] stages = []: some of {known} belong here")
    return _chosen(config, "stages", stages, known)


def phases_of(config: Config) -> tuple[str, ...]:
    """The phases of preference learning, in order. Raises ConfigError where they are not a choice of them."""
    return _chosen(config, "preference", config.training.preference, list(get_args(Phase)))


def plan(config: Config, store: str, name: str, start: str | None = None) -> dict[str, str]:
    """The hash of all that goes into each stage, upstream stages included, in the order of the stages.

    Args:
        config: the whole configuration. store: the store's fingerprint. name: of the release.
        start: content hash of the release that the training continues; None: it begins anew.

    Raises ConfigError where the configured stages or phases are not a choice of those there are.
    """
    training = config.training
    stages, phases = stages_of(config, start), phases_of(config)
    split = [training.seed, training.held_out, training.relevant_grade, training.half_life_days]
    judged = [training.judged_searches, training.reward_queries, training.reward_beams]
    world = [store, platform_version()]
    if start is None:
        made = {"tokenizer": hash_of(world, _component(config, "tokenizer"))}
        made["vocabulary"] = hash_of(made["tokenizer"], split, training.vocabulary_size)
    else:
        made = {"tokenizer": hash_of("from", start, world, _component(config, "tokenizer"))}
        made["vocabulary"] = hash_of(made["tokenizer"], "from")
    made["index"] = hash_of(made["tokenizer"], training.half_life_days)
    made["user_encoder"] = hash_of(made["vocabulary"], made["index"], _component(config, "user_encoder"))
    generator, by_stage = _by_stage(_component(config, "generator"))
    guided = config.serving.node_vectors
    upstream = hash_of(made["user_encoder"], split, judged, training.pseudo_queries, generator, guided)
    for stage in stages:
        personal = stage in (PERSONAL, REFRESH)
        of_shoppers = [training.personal_examples, training.sliding_window] if personal else []
        upstream = made[stage] = hash_of(upstream, stage, by_stage.get(stage), *of_shoppers)
    made["generator"] = hash_of(upstream, "export")
    made["lists"] = hash_of(made["generator"], judged)
    reward = [training.reward_impressions, _component(config, "reward")]
    upstream = made["reward"] = hash_of(made["lists"], reward)
    wanted = [training.preference_lists, training.preference_beams, training.keep_worse]
    for phase in phases:
        upstream = made[phase] = hash_of(upstream, phase, by_stage.get(phase), wanted)
    if phases and training.refit_reward:
        made["lists_again"] = hash_of(upstream, judged)
        upstream = made["reward_again"] = hash_of(made["lists_again"], reward)
    made["release"] = hash_of(upstream, name, config.dump())
    return made


def _component(config: Config, role: Role) -> list[Any]:
    name = config.names[role]
    origin = config.plugins.distribution_of(role, name)
    return [role, name, *origin, config.settings[role].model_dump(mode="json")]


def _by_stage(component: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """A generator without the tables named after stages and phases, and those: each counts for its own."""
    *about, settings = component
    named = (*get_args(Stage), *get_args(Phase))
    own = {name: settings[name] for name in named if name in settings}
    return [*about, {name: value for name, value in settings.items() if name not in own}], own


def _chosen(config: Config, key: str, chosen: tuple[str, ...], known: list[str]) -> tuple[str, ...]:
    if any(name not in known for name in chosen) or len(set(chosen)) != len(chosen):
        raise ConfigError(
            f"{config.source}: [training] {key} = {list(chosen)}: some of {known} belong here, each once"
        )
    return chosen
