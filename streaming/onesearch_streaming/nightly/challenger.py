"""The challenger: the champion, trained on by what the window holds."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from onesearch._toml import write_toml
from onesearch.config import Config, parse_config
from onesearch.data.store import Store
from onesearch.errors import ConfigError
from onesearch.progress import Progress
from onesearch.releases.release import Release
from onesearch.training.run import Trained, train


def train_challenger(
    store: Store, releases: Path, name: str, champion: Release, overrides: str, progress: Progress
) -> Trained:
    """Go on from the champion: its tokenizer, vocabulary and supervised weights stay, all else is learnt
    anew.

    Resumable and idempotent, as :func:`onesearch.training.run.train` is.
    """
    config = night_config(champion, overrides)
    return train(store, releases, name, config, progress)


def night_config(champion: Release, overrides: str = "") -> Config:
    """The champion's configuration, with the keys that a TOML text sets.

    Raises ConfigError where the text does not fit.
    """
    try:
        given = tomllib.loads(overrides)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the night's configuration: not TOML: {error}") from error
    given.pop("nightly", None)
    if not given:
        return champion.config
    tables = _merged(champion.config.tables(), given)
    return parse_config(write_toml(tables), "the champion's configuration with the night's")


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for key, value in over.items():
        inner = base.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        made[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return made
