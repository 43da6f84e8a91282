from pathlib import Path

import numpy as np
import pytest
import torch
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ArtifactError, OneSearchError, UsageError
from onesearch_museq.config import MuSeqConfig
from onesearch_museq.learner import MuSeqLearner
from onesearch_museq.server import MuSeqServer

from .conftest import DIM, World, shopper

WIDTH = 16


def train(learner: MuSeqLearner) -> torch.nn.Module:
    module = learner.module(DIM, WIDTH)
    assert module is not None
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return module


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_module_is_one_object_of_one_size(world: World) -> None:
    learner = world.learner()
    assert learner.module(DIM, WIDTH) is learner.module(DIM, WIDTH)
    with pytest.raises(UsageError, match="asked for are 8 and 32"):
        learner.module(DIM, 32)
    assert world.learner(long=False).module(DIM, WIDTH) is None


def test_an_untrained_module_is_left_out(world: World, tmp_path: Path) -> None:
    learner = world.learner()
    learner.module(DIM, WIDTH)
    learner.export(tmp_path / "served")
    learner.save(tmp_path / "saved")
    assert files(tmp_path / "served") == files(tmp_path / "saved") == ["museq.json", "stand_ins.safetensors"]
    server = MuSeqServer.open(tmp_path / "served", world.context, MuSeqConfig())
    prompt = server.features([shopper([1, 2])], ["red"], world.index.sids[:1])
    assert prompt.prefix.shape == (1, 0, 0) and prompt.prefix.dtype == np.float32


def test_a_trained_module_is_served_as_it_was_trained(world: World, tmp_path: Path) -> None:
    learner = world.learner(queries=3)
    module = train(learner)
    learner.export(tmp_path / "served")
    server = MuSeqServer.open(tmp_path / "served", world.context, MuSeqConfig())
    states = [shopper([1, 2, 3], [4]), ShopperState(), shopper([], [5])]
    raw = server.raw(states, ["red"] * 3, world.index.sids[:3])
    wanted = module(torch.from_numpy(raw.history), torch.from_numpy(raw.history_mask)).detach().numpy()
    prompt = server.features(states, ["red"] * 3, world.index.sids[:3])
    assert prompt.prefix.shape == (3, 3, WIDTH) and np.allclose(prompt.prefix, wanted, atol=1e-5)
    none = server.features([], [], world.index.sids[:0])
    assert none.prefix.shape == (0, 3, WIDTH)


def test_saved_and_loaded(world: World, tmp_path: Path) -> None:
    learner = world.learner(queries=3, recent=4)
    module = train(learner)
    learner.save(tmp_path / "saved")
    assert files(tmp_path / "saved") == ["museq.json", "qformer.safetensors", "stand_ins.safetensors"]
    loaded = MuSeqLearner.load(tmp_path / "saved", MuSeqConfig())
    assert loaded.settings == learner.settings
    again = loaded.module(DIM, WIDTH)
    assert again is not None and again.trained
    for name, tensor in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    with pytest.raises(UsageError):
        loaded.module(DIM, WIDTH + 4)


def test_without_stand_ins_nothing_is_fitted(tmp_path: Path) -> None:
    learner = MuSeqLearner(MuSeqConfig(cold=False))
    learner.save(tmp_path)
    assert files(tmp_path) == ["museq.json"]
    assert MuSeqLearner.load(tmp_path, MuSeqConfig()).stand_ins is None


def test_it_has_to_be_fitted_first(tmp_path: Path) -> None:
    with pytest.raises(OneSearchError, match="fitted"):
        MuSeqLearner(MuSeqConfig()).save(tmp_path)


@pytest.mark.parametrize("name", ["museq.json", "stand_ins.safetensors", "qformer.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_broken_file_is_named(world: World, tmp_path: Path, name: str, content: bytes | None) -> None:
    learner = world.learner()
    train(learner)
    learner.save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        MuSeqLearner.load(tmp_path, MuSeqConfig())


def test_another_format_is_refused(world: World, tmp_path: Path) -> None:
    world.learner().save(tmp_path)
    path = tmp_path / "museq.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ArtifactError, match="format 9"):
        MuSeqLearner.load(tmp_path, MuSeqConfig())
