"""Trainings as runs of MLflow, in an SQLite file beside the releases unless told otherwise.

MLflow is imported when something is recorded, never before; where it is not installed, or cannot write,
training goes on and says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onesearch.config import Config, Section
from onesearch.progress import Progress

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from onesearch.training.run import Trained

DATABASE = "mlflow.db"
_BATCH = 1_000  # metrics of one call, MLflow's own limit
_LONGEST = 6_000  # characters of a parameter


class TrackingConfig(Section):
    """Where trainings are recorded."""

    enabled: bool = True
    """Whether ``onesearch train`` records a run of MLflow."""
    uri: str = ""
    """MLflow's tracking URI; empty: ``mlflow.db`` (SQLite) in the folder of releases."""
    experiment: str = "onesearch"
    """The experiment that runs belong to."""


def record(trained: Trained, config: Config, releases: Path, progress: Progress) -> str | None:
    """Record a finished training: its settings, figures and curves of every stage, and the release.

    Args:
        trained: what :func:`onesearch.training.run.train` ended with.
        config: what it was trained with; its table ``[tracking]`` says where to.
        releases: the folder of releases.
        progress: is told where the run is, or why there is none.

    Returns the run's id; None where nothing was recorded.
    """
    settings = config.section("tracking", TrackingConfig)
    if not settings.enabled:
        return None
    release = trained.release
    try:
        from mlflow.entities import Metric, Param, RunTag

        with progress.task("recording the run"):
            uri, client = connect(settings, releases)
            found = client.get_experiment_by_name(settings.experiment)
            artifacts = None if settings.uri else (releases / ".mlflow").resolve().as_uri()
            experiment = (
                found.experiment_id
                if found is not None
                else client.create_experiment(settings.experiment, artifact_location=artifacts)
            )
            run = client.create_run(experiment, run_name=release.name).info.run_id
            now = int(time.time() * 1000)
            metrics = [
                Metric(name, value, now, step)
                for report in trained.stages
                for name, value, step in numbers(report.stage, report.figures | {"seconds": report.seconds})
            ]
            params = [Param(name, str(value)[:_LONGEST]) for name, value in flat(config.tables())]
            tags = [
                RunTag("onesearch.release", str(release.path)),
                RunTag("onesearch.content", release.manifest.content_hash()),
                RunTag("onesearch.store", release.manifest.store),
            ]
            client.log_batch(run, [], [], tags)
            for start in range(0, len(params), 100):
                client.log_batch(run, [], params[start : start + 100], [])
            for start in range(0, len(metrics), _BATCH):
                client.log_batch(run, metrics[start : start + _BATCH], [], [])
            client.set_terminated(run)
    except ImportError:
        progress.say("the run is not recorded: MLflow is not installed (pip install 'onesearch[train]')")
        return None
    except Exception as error:  # a release that is written must not be lost to its record
        progress.say(f"the run is not recorded: {type(error).__name__}: {error}")
        return None
    progress.say(f"recorded as run {run} ({uri})")
    return str(run)


def connect(settings: TrackingConfig, releases: Path) -> tuple[str, MlflowClient]:
    """Where runs of a folder of releases are kept, and a client for it. Raises ImportError without MLflow."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    uri = settings.uri or f"sqlite:///{(releases / DATABASE).resolve()}"
    return uri, MlflowClient(tracking_uri=uri, registry_uri=uri)


def numbers(name: str, value: Any, step: int = 0) -> Iterator[tuple[str, float, int]]:
    """Every number of some figures, with the name of its place in them, as MLflow names metrics.

    A list of objects is a curve: the ``step`` (or ``epoch``) of each, else its number, is the metric's step.
    """
    match value:
        case bool() | None | str():
            return
        case int() | float():
            yield name.replace("@", "_at_"), float(value), step
        case Mapping():
            for key, entry in value.items():
                yield from numbers(f"{name}/{key}", entry, step)
        case list() | tuple():
            for at, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    own = entry.get("step", entry.get("epoch", at))
                    rest = {key: part for key, part in entry.items() if key not in ("step", "epoch")}
                    yield from numbers(name, rest, int(own))


def flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
