"""What holds the generator may be an instance of a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from onesearch.releases.release import Release
from onesearch.serving.repository import RepositorySettings, build_repository
from tritonclient.grpc import model_config_pb2


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("gpu", [False, True])
def test_what_holds_the_generator_is_an_instance_of_the_gpu(
    together: bool, gpu: bool, toy_release: Release, tmp_path: Path
) -> None:
    names = build_repository(toy_release, tmp_path, RepositorySettings(together=together, gpu=gpu))
    holder = "toy--search" if together else "toy--generator"
    for name in names if together else names[:-1]:
        text = (tmp_path / name / "config.pbtxt").read_text(encoding="utf-8")
        [group] = text_format.Parse(text, model_config_pb2.ModelConfig()).instance_group
        wanted = group.KIND_GPU if gpu and name == holder else group.KIND_CPU
        assert (
            group.kind == wanted and group.count == 1 and list(group.gpus) == [0] * (gpu and name == holder)
        )
