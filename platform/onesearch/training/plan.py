"""What goes into each stage of a training, as hashes: a stage whose hash is in the ledger is done."""

from __future__ import annotations

from typing import Any, get_args

from onesearch.config import Config
from onesearch.contracts.generator import Stage
from onesearch.contracts.offers import Role
from onesearch.errors import ConfigError
from onesearch.releases.release import platform_version
from onesearch.training.ledger import hash_of

PERSONAL: Stage = "personalisation"


def plan(config: Config, store: str, name: str) -> dict[str, str]:
    """The hash of all that goes into each stage, upstream stages included, in the order of the stages.

    Args:
        config: the whole configuration. store: the store's fingerprint. name: of the release.

    Raises ConfigError where ``[training] stages`` is not a choice of the stages there are.
    """
    training = config.training
    stages = training.stages
    unknown = [stage for stage in stages if stage not in get_args(Stage)]
    if unknown or not stages or len(set(stages)) != len(stages):
        raise ConfigError(
            f"{config.source}: [training] stages = {list(stages)}: "
            f"some of {list(get_args(Stage))} belong here, each once"
        )
    split = [training.seed, training.held_out, training.relevant_grade, training.half_life_days]
    made = {"tokenizer": hash_of([store, platform_version()], _component(config, "tokenizer"))}
    made["vocabulary"] = hash_of(made["tokenizer"], split, training.vocabulary_size)
    made["index"] = hash_of(made["tokenizer"], training.half_life_days)
    made["user_encoder"] = hash_of(made["vocabulary"], made["index"], _component(config, "user_encoder"))
    upstream = hash_of(made["user_encoder"], split, training.pseudo_queries, _component(config, "generator"))
    for stage in stages:
        of_shoppers = [training.personal_examples, training.sliding_window] if stage == PERSONAL else []
        upstream = made[stage] = hash_of(upstream, stage, *of_shoppers)
    made["generator"] = hash_of(upstream, "export")
    made["lists"] = hash_of(made["generator"], training.reward_queries, training.reward_beams)
    made["reward"] = hash_of(made["lists"], _component(config, "reward"))
    made["release"] = hash_of(made["reward"], name, config.dump())
    return made


def _component(config: Config, role: Role) -> list[Any]:
    name = config.names[role]
    origin = config.plugins.distribution_of(role, name)
    return [role, name, *origin, config.settings[role].model_dump(mode="json")]
