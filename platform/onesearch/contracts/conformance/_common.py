"""What every component promises, whatever its role."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from onesearch.contracts.conformance._world import ODD_TEXTS, World
from onesearch.contracts.offers import Learner, Offer, Role, Server
from onesearch.errors import ArtifactError, ConfigError
from onesearch.plugins import Plugins

TEXTS = ("red lamp", "蓝色 椅子", "oak table for six", "lamp")
LEARNING_ONLY = ("torch", "onnx", "pyarrow", "scipy", "sklearn", "sentence_transformers", "lightgbm", "bm25s")
Answers = dict[str, np.ndarray]


class Subject:
    """One component under check: fitted once, when the first check asks for it."""

    def __init__(self, role: Role, name: str, settings: Mapping[str, Any] | None, plugins: Plugins) -> None:
        self.role = role
        self.offer: Offer = plugins.offer(role, name)
        try:
            self.config: BaseModel = self.offer.config.model_validate(
                self.offer.quick if settings is None else settings
            )
        except ValidationError as error:
            raise ConfigError(f"{role} '{name}': settings do not fit: {error}") from error
        self._temporary = tempfile.TemporaryDirectory(prefix="onesearch-check-")
        self.folder = Path(self._temporary.name)
        self.world = World(self.folder / "world")
        self.fit: Callable[[Learner, Path], Any] = lambda learner, work: None

    @cached_property
    def report(self) -> Any:
        """What ``fit`` returned."""
        return self._fitted[1]

    @cached_property
    def learner(self) -> Learner:
        """The fitted learner."""
        return self._fitted[0]

    @cached_property
    def _fitted(self) -> tuple[Learner, Any]:
        learner = self.offer.learner_class()(self.config)
        return learner, self.fit(learner, self.folder / "work")

    @cached_property
    def saved(self) -> Path:
        """Where the learner was saved."""
        return _written(self.learner.save, self.folder / "saved")

    @cached_property
    def exported(self) -> Path:
        """What the learner exported."""
        return _written(self.learner.export, self.folder / "exported")

    @cached_property
    def server(self) -> Server:
        """The opened server."""
        return self.open(self.exported)

    def open(self, folder: Path) -> Server:
        """Open a server on an exported folder."""
        return self.offer.server_class().open(folder, self.world.context(), self.config)

    def load(self, folder: Path) -> Learner:
        """Load a learner."""
        return self.offer.learner_class().load(folder, self.config)


class ComponentSuite(ABC):
    """Checks that all roles share. A method ``check_…`` is one check; its docstring is the promise."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.world = subject.world
        subject.fit = self.fit

    @abstractmethod
    def fit(self, learner: Any, work: Path) -> Any:
        """Fit on the world; return what the learner returned."""

    @abstractmethod
    def answers(self, server: Any, texts: Sequence[str]) -> Answers:
        """Everything that a server says to some texts, one row a text."""

    def check_config_is_documented(self) -> None:
        """Every field of the configuration has a default and a description."""
        for name, field in type(self.subject.config).model_fields.items():
            assert field.description, f"{type(self.subject.config).__name__}.{name} has no description"
            assert not field.is_required(), f"{type(self.subject.config).__name__}.{name} has no default"

    def check_report(self) -> None:
        """``fit`` returns figures that JSON can hold."""
        assert isinstance(self.subject.report, dict), f"fit returned {type(self.subject.report).__name__}"
        json.dumps(self.subject.report)

    def check_nothing_pickled(self) -> None:
        """Neither ``save`` nor ``export`` writes pickles."""
        for folder in (self.subject.saved, self.subject.exported):
            for file in _files(folder):
                head = file.read_bytes()[:2]
                assert head[:1] != b"\x80" or head[1:] not in (b"\x02", b"\x03", b"\x04", b"\x05"), (
                    f"{file} is a pickle"
                )
                assert head != b"PK", f"{file} is a zip, as torch.save writes them: a pickle inside"

    def check_same_twice(self) -> None:
        """The same request gets the same answer, also from a server opened again."""
        first = self.answers(self.subject.server, TEXTS)
        _same(first, self.answers(self.subject.server, TEXTS), "asked twice", 0.0)
        _same(first, self.answers(self.subject.open(self.subject.exported), TEXTS), "opened again", 0.0)

    def check_saved_and_loaded(self) -> None:
        """A learner saved, loaded and exported serves as the first did."""
        loaded = self.subject.load(self.subject.saved)
        exported = _written(loaded.export, self.subject.folder / "exported-after-load")
        first = self.answers(self.subject.server, TEXTS)
        _same(first, self.answers(self.subject.open(exported), TEXTS), "saved, loaded and exported", 1e-4)

    def check_empty_batch(self) -> None:
        """No text gets an answer of no rows, with the dtypes of any other."""
        full, empty = (self.answers(self.subject.server, texts) for texts in (TEXTS, ()))
        for name, array in empty.items():
            assert len(array) == 0, f"{name} of no text has {len(array)} rows"
            if array.dtype.kind != "U":
                assert array.dtype == full[name].dtype, (
                    f"{name} of no text is {array.dtype}, not {full[name].dtype}"
                )

    def check_odd_texts(self) -> None:
        """Empty, huge, foreign and unprintable texts get answers of the right shape like any other."""
        for name, array in self.answers(self.subject.server, ODD_TEXTS).items():
            assert len(array) == len(ODD_TEXTS), f"{name} has {len(array)} rows for {len(ODD_TEXTS)} texts"
            assert array.dtype.kind != "f" or not np.isnan(array).any(), f"{name} holds NaN"

    def check_damage_is_noticed(self) -> None:
        """A missing or truncated file is an ArtifactError that names it, or else does not matter."""
        wanted = self.answers(self.subject.server, TEXTS)
        for half, folder in (("saved", self.subject.saved), ("exported", self.subject.exported)):
            for file in _files(folder):
                for damage in ("removed", "truncated"):
                    self._damage(half, folder, file.relative_to(folder), damage, wanted)

    def _damage(self, half: str, folder: Path, name: Path, damage: str, wanted: Answers) -> None:
        broken = self.subject.folder / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(folder, broken)
        content = (broken / name).read_bytes()
        (broken / name).unlink()
        if damage == "truncated":
            (broken / name).write_bytes(content[: len(content) // 2])
        try:
            if half == "saved":
                broken = _written(self.subject.load(broken).export, self.subject.folder / "broken-export")
            _same(wanted, self.answers(self.subject.open(broken), TEXTS), f"{name} {damage}, unnoticed", 1e-4)
        except ArtifactError as error:
            assert name.name in str(error), f"{name} {damage}: the error does not name it: {error}"

    def check_serves_without_learning(self) -> None:
        """The plugin imports and the server answers the same where torch and its like cannot be imported."""
        target = self.subject.folder / "alone.npz"
        command = [sys.executable, "-m", "onesearch.contracts.conformance._alone", self.subject.role,
                   self.subject.offer.name, self.subject.config.model_dump_json(), str(self.world.folder),
                   str(self.subject.exported), str(target)]  # fmt: skip
        wanted = self.answers(self.subject.server, TEXTS)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"alone it failed: {done.stderr.strip()[-1500:]}"
        with np.load(target, allow_pickle=False) as loaded:
            _same(wanted, dict(loaded), "in an environment of its own", 1e-4)


def _written(write: Callable[[Path], None], folder: Path) -> Path:
    write(folder)
    assert folder.is_dir() and any(folder.iterdir()), f"nothing was written to {folder.name}"
    return folder


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _same(wanted: Answers, found: Answers, when: str, tolerance: float) -> None:
    for name, array in wanted.items():
        other = found[name]
        assert array.shape == other.shape, f"{when}: {name} has shape {other.shape}, not {array.shape}"
        close = (
            np.allclose(array, other, atol=tolerance, rtol=0)
            if array.dtype.kind == "f"
            else (array == other).all()
        )
        assert close, f"{when}: {name} differs"


def shaped(name: str, array: np.ndarray, shape: tuple[int | None, ...], dtype: type) -> None:
    """Assert shape (None: any) and dtype of an array."""
    assert isinstance(array, np.ndarray), f"{name} is a {type(array).__name__}, not an array"
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    assert fits, f"{name} has shape {array.shape}, not {shape}"
    assert array.dtype == dtype, f"{name} is {array.dtype}, not {np.dtype(dtype)}"
