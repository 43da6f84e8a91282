"""Nights in MLflow: each training a run with the gate's figures, each release a version, two of them aliased.

The registered model ``onesearch`` has a version for every challenger. The alias ``champion`` is at the one
that serves, ``challenger`` at the newest, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onesearch.config import Config
from onesearch.progress import Progress
from onesearch.releases.release import Release
from onesearch.training.reports import StageReport
from onesearch.training.run import Trained
from onesearch.training.tracking import TrackingConfig, connect, record

MODEL = "onesearch"
_NIGHT = "onesearch.night"


def record_night(
    releases: Path, release: Release | None, about: Mapping[str, Any], config: Config, progress: Progress
) -> str | None:
    """Record how a night ended; a night that is recorded is recorded once.

    Args:
        releases: the folder of releases. release: the challenger; None: nothing was trained, nothing is
            recorded.
        about: everything that is known of the night. config: its table ``[tracking]`` says where to.

    Returns the run's id; None where nothing was recorded. A record that fails is told, and fails no night.
    """
    settings = config.section("tracking", TrackingConfig)
    if release is None or not settings.enabled:
        return None
    try:
        _, client = connect(settings, releases)
        tag = f"{about['night']} {about['challenger']['content'][:12]}"
        run = _run_of(client, settings.experiment, tag)
        if run is None:
            stages = tuple(StageReport(resumed=False, **one) for one in about["challenger"]["stages"])
            run = record(Trained(release, stages), config, releases, progress)
            if run is None:
                return None
            for check in about["verdict"]["checks"]:
                if check["value"] is not None:
                    client.log_metric(run, f"gate/{check['name']}", check["value"])
            client.set_tag(run, "onesearch.promoted", str(about["promoted"]).lower())
            client.set_tag(run, "onesearch.reasons", "; ".join(about["verdict"]["reasons"])[:5_000])
            client.set_tag(run, _NIGHT, tag)
        _alias(client, run, release, str(about["champion"]))
    except ImportError:
        progress.say("the night is not recorded: MLflow is not installed (pip install 'onesearch[train]')")
        return None
    except Exception as error:  # a release that is written must not be lost to its record
        progress.say(f"the night is not recorded: {type(error).__name__}: {error}")
        return None
    return run


def _run_of(client: Any, experiment: str, tag: str) -> str | None:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = client.search_runs([found.experiment_id], f"tags.`{_NIGHT}` = '{tag}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _alias(client: Any, run: str, release: Release, champion: str) -> None:
    """A version for the release, and both aliases where they belong."""
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL)
    versions = client.search_model_versions(f"name = '{MODEL}'")
    own = [one for one in versions if one.run_id == run]
    made = (
        own[0]
        if own
        else client.create_model_version(
            MODEL, source=release.path.resolve().as_uri(), run_id=run, tags={"release": release.name}
        )
    )
    client.set_registered_model_alias(MODEL, "challenger", made.version)
    serving = [one for one in [*versions, made] if one.tags.get("release") == champion]
    if serving:
        client.set_registered_model_alias(MODEL, "champion", serving[-1].version)
