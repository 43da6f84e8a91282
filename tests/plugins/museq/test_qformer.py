from pathlib import Path

import numpy as np
import pytest
import torch
from onesearch.compiling.runtime import Runtime
from onesearch.errors import UsageError
from onesearch_museq.qformer import QFormer
from onesearch_museq.qformer_graph import write_graph

DIM, WIDTH = 6, 16
torch.set_num_threads(1)


def shaken(seed: int = 1, **settings: int) -> QFormer:
    """A module of which no parameter is where it started."""
    module = QFormer(DIM, WIDTH, **settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


def some_history(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(count, 9, generator=generator) > 0.4
    return torch.randn(count, 9, DIM, generator=generator) * mask[..., None], mask


def test_shapes() -> None:
    module = shaken(queries=3)
    prefix, weights = module.attend(*some_history(5))
    assert prefix.shape == (5, 3, WIDTH) and weights.shape == (5, 3, 10)
    assert torch.equal(module(*some_history(5)), prefix)
    assert module(*some_history(0)).shape == (0, 3, WIDTH)


def test_untrained_it_says_the_same_of_everybody() -> None:
    module = QFormer(DIM, WIDTH)
    prefix = module(*some_history(4))
    assert not module.trained
    assert torch.equal(prefix, module.place.expand(4, -1, -1))


def test_one_step_trains_it_and_the_next_reaches_the_inside() -> None:
    module = QFormer(DIM, WIDTH)
    for step in range(2):
        names, parameters = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad((module(*some_history(4)) - 1).square().sum(), parameters)
        assert bool(gradients[names.index("project.weight")].any()) == (step > 0)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient
        assert module.trained


def test_an_empty_history_reads_nothing_known() -> None:
    module = shaken()
    prefix, weights = module.attend(torch.zeros(2, 9, DIM), torch.zeros(2, 9, dtype=torch.bool))
    assert torch.isfinite(prefix).all() and torch.equal(prefix[0], prefix[1])
    assert weights[..., -1].allclose(torch.ones(2, 2)) and not weights[..., :-1].any()


def test_hidden_vectors_do_not_matter() -> None:
    module = shaken()
    history, mask = some_history(3)
    other = torch.where(mask[..., None], history, torch.full_like(history, 7.0))
    assert module(history, mask).allclose(module(other, mask), atol=1e-6)
    _, weights = module.attend(other, mask)
    assert not weights[:, :, :-1][~mask[:, None].expand(-1, 2, -1)].any()
    assert weights.sum(dim=-1).allclose(torch.ones(3, 2))


def test_the_seed_decides_and_nothing_else_is_touched() -> None:
    before = torch.random.get_rng_state()
    one, same, other = QFormer(DIM, WIDTH, seed=1), QFormer(DIM, WIDTH, seed=1), QFormer(DIM, WIDTH, seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.project.weight, same.project.weight)
    assert not torch.equal(one.project.weight, other.project.weight)


def test_heads_have_to_divide_the_width() -> None:
    with pytest.raises(UsageError, match="heads 3"):
        QFormer(DIM, WIDTH, heads=3)


def test_in_mixed_precision() -> None:
    module = shaken()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prefix = module(*some_history(4))
    assert prefix.float().allclose(module(*some_history(4)), atol=0.15)


@pytest.mark.parametrize(
    "settings", [{}, {"queries": 3, "layers": 3, "heads": 2}, {"queries": 1, "heads": 1}]
)
def test_the_graph_equals_the_module(tmp_path: Path, settings: dict[str, int]) -> None:
    module = shaken(**settings)
    weights = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    write_graph(weights, settings.get("heads", 4), tmp_path / "museq.onnx")
    session = Runtime(threads=1).session(tmp_path / "museq.onnx")
    for count in (1, 2, 7):
        history, mask = some_history(count, seed=count)
        mask[0] = False
        wanted = module.attend(history, mask)
        found = session.run({"history": history.numpy(), "history_mask": mask.numpy()})
        for name, tensor in zip(("prefix", "weights"), wanted, strict=True):
            assert found[name].dtype == np.float32
            assert np.allclose(found[name], tensor.detach().numpy(), atol=1e-5)
