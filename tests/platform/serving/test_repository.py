from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from onesearch.errors import ServingError
from onesearch.releases.release import Release
from onesearch.serving.repository import STEPS, RepositorySettings, build_repository, model_names, templates
from tritonclient.grpc import model_config_pb2


def _config(folder: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.fixture
def repository(toy_release: Release, tmp_path: Path) -> Path:
    names = build_repository(toy_release, tmp_path, RepositorySettings(threads=3))
    assert names == model_names("toy") and names[-1] == "toy--search"
    return tmp_path


def test_every_model_is_one_that_triton_reads(repository: Path, toy_release: Release) -> None:
    assert sorted(path.name for path in repository.iterdir()) == sorted(model_names("toy"))
    for step in STEPS:
        config = _config(repository / f"toy--{step}")
        assert config.name == f"toy--{step}" and config.backend == "python"
        assert config.parameters["release"].string_value == str(toy_release.path)
        assert config.parameters["threads"].string_value == ("3" if step == "generator" else "1")
        assert (repository / config.name / "1" / "model.py").is_file()


def test_one_process_for_all_steps_has_the_ensembles_tensors(
    repository: Path, toy_release: Release, tmp_path: Path
) -> None:
    folder = tmp_path / "together"
    folder.mkdir()
    names = build_repository(toy_release, folder, RepositorySettings(threads=3, together=True))
    assert names == model_names("toy", together=True) == ("toy--tokenizer", "toy--search")
    assert sorted(path.name for path in folder.iterdir()) == ["toy--search", "toy--tokenizer"]
    ensemble, whole = _config(repository / "toy--search"), _config(folder / "toy--search")
    assert whole.backend == "python" and whole.parameters["threads"].string_value == "3"
    assert (folder / "toy--search" / "1" / "model.py").is_file()
    # Either all of them, or the one tensor that holds them.
    *same, request = whole.input
    assert request.name == "REQUEST" and all(tensor.optional for tensor in whole.input)
    for tensor in same:
        tensor.optional = False
    assert same == list(ensemble.input)
    assert list(whole.output)[: len(ensemble.output)] == list(ensemble.output)
    assert [tensor.name for tensor in whole.output][len(ensemble.output) :] == ["SPENT", "PACKED"]


def test_the_ensemble_fits_its_steps(repository: Path) -> None:
    """Every tensor comes from the request or an earlier step, as the next step wants it."""
    ensemble = _config(repository / "toy--search")
    known = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in ensemble.input}
    for step, name in zip(ensemble.ensemble_scheduling.step, STEPS, strict=True):
        config = _config(repository / step.model_name)
        assert step.model_name == f"toy--{name}" and ensemble.max_batch_size <= config.max_batch_size
        assert sorted(step.input_map) == sorted(tensor.name for tensor in config.input)
        assert sorted(step.output_map) == sorted(tensor.name for tensor in config.output)
        for tensor in config.input:
            assert known[step.input_map[tensor.name]] == (tensor.data_type, list(tensor.dims)), tensor.name
            assert tensor.allow_ragged_batch == (-1 in tensor.dims)
        known |= {
            step.output_map[tensor.name]: (tensor.data_type, list(tensor.dims)) for tensor in config.output
        }
    for tensor in ensemble.output:
        assert known[tensor.name] == (tensor.data_type, list(tensor.dims))


def test_python_cannot_leave_bytecode_in_the_repository(repository: Path) -> None:
    assert all((repository / f"toy--{step}" / "1" / "__pycache__").is_file() for step in STEPS)


def test_two_releases_stand_side_by_side(repository: Path, toy_release: Release, tmp_path: Path) -> None:
    other = Release(tmp_path / "other", toy_release.manifest.model_copy(update={"name": "other"}))
    build_repository(other, repository)
    assert {f"toy--{step}" for step in STEPS} < {path.name for path in repository.iterdir()}
    assert _config(repository / "other--search").ensemble_scheduling.step[0].model_name == "other--tokenizer"


def test_a_path_of_any_script_becomes_a_plain_one(toy_release: Release, tmp_path: Path) -> None:
    odd = tmp_path / 'releases "à la carte"'
    odd.mkdir()
    folder = tmp_path / "repository"
    folder.mkdir()
    moved = Release(shutil.copytree(toy_release.path, odd / "物"), toy_release.manifest)
    build_repository(moved, folder)
    path = Path(_config(folder / "toy--reward").parameters["release"].string_value)
    assert str(path).isascii() and path.resolve() == moved.path


def test_a_repository_that_cannot_be_written_leaves_nothing(toy_release: Release, tmp_path: Path) -> None:
    source = tmp_path / "templates"
    shutil.copytree(templates(), source)
    (source / "reward" / "config.pbtxt").unlink()
    target = tmp_path / "repository"
    target.mkdir()
    with pytest.raises(ServingError, match="toy--reward"):
        build_repository(toy_release, target, source=source)
    assert not [path for path in target.iterdir() if path.name.startswith(".")]
