"""The towers learn clicks and orders, whatever the place; their graph says what they say."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from onesearch.compiling.runtime import Runtime
from onesearch.progress import SilentProgress
from onesearch_pars.config import TowersConfig
from onesearch_pars.measures import auc
from onesearch_pars.samples import Rows
from onesearch_pars.tower_graph import FILE, write_graph
from onesearch_pars.towers import TOWERS, FittedTowers, Towers, _losses, best_epoch, fit_towers, predict
from onesearch_pars.trees import Trees, boost

VIEWS, DIM, SCALARS, ITEMS = 3, 4, 4, 50
SMALL = {"trees": 60, "rank": 8, "hidden": 32, "tower": 8, "epochs": 15, "batch_size": 256}
CONFIG = TowersConfig(**SMALL, learning_rate=0.01, dropout=0.0, patience=15)


def rows(
    requests: int = 900, shown: int = 8, seed: int = 0
) -> tuple[Rows, np.ndarray, np.ndarray, np.ndarray]:
    """Clicks by how near the second view is to the item, orders by the first scalar, seen by place."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(ITEMS, DIM)).astype(np.float16)
    views = random.normal(size=(requests, VIEWS, DIM)).astype(np.float16)
    count = requests * shown
    item = random.integers(ITEMS, size=count).astype(np.int32)
    scalars = random.normal(size=(count, SCALARS)).astype(np.float32)
    place = np.tile(np.arange(shown), requests).astype(np.int32)
    near = (views[np.repeat(np.arange(requests), shown), 1] * vectors[item]).sum(axis=1).astype(np.float64)
    likes = 1 / (1 + np.exp(1.0 - 1.5 * near))
    wants = 1 / (1 + np.exp(1.0 - 2 * scalars[:, 0]))
    clicked = random.random(count) < likes * (1.0 + place) ** -1.0
    ordered = clicked & (random.random(count) < wants)
    made = Rows(
        views,
        np.full(requests, shown),
        item,
        scalars,
        place,
        clicked.astype(np.float32),
        ordered.astype(np.float32),
    )
    return made, vectors, likes, wants


@pytest.fixture(scope="module")
def fitted():
    made, vectors, likes, wants = rows()
    train, valid, held = np.split(np.arange(900), [700, 780])
    model, curve = fit_towers(made, train, valid, vectors, CONFIG, SilentProgress())
    return made, vectors, likes, wants, held, model, curve


def test_they_learn_what_is_behind_the_clicks(fitted) -> None:
    made, vectors, likes, wants, held, model, curve = fitted
    at = made.of(held)
    rates = predict(model, made, held, vectors)
    assert rates.shape == (len(at), 3) and ((rates > 0) & (rates < 1)).all()
    assert np.corrcoef(rates[:, 0], likes[at])[0, 1] > 0.8
    assert np.corrcoef(rates[:, 1], wants[at])[0, 1] > 0.5
    assert auc(rates[:, 2], made.ordered[at] > 0) > 0.75
    assert (
        curve[0]["epoch"] == 1
        and best_epoch(curve)
        == min(range(len(curve)), key=lambda epoch: curve[epoch]["ctr"] + curve[epoch]["ctcvr"]) + 1
    )


def test_places_are_learnt_and_left_out(fitted) -> None:
    made, vectors, _, _, held, model, _ = fitted
    at = made.of(held)
    placed, first = (predict(model, made, held, vectors, stood) for stood in (True, False))
    assert (placed[made.place[at] == 0] == first[made.place[at] == 0]).all()
    assert placed[made.place[at] == 7, 0].mean() < 0.5 * first[made.place[at] == 7, 0].mean()
    assert auc(placed[:, 0], made.clicked[at] > 0) > auc(first[:, 0], made.clicked[at] > 0)
    assert abs(placed[:, 0].mean() - made.clicked[at].mean()) < 0.04, "as they stood, rates are true"


def test_the_same_seed_the_same_towers(fitted) -> None:
    made, vectors, _, _, _, model, _ = fitted
    train, valid, _ = np.split(np.arange(900), [700, 780])
    again, _ = fit_towers(made, train, valid, vectors, CONFIG, SilentProgress())
    for name, array in model.arrays().items():
        assert np.array_equal(array, again.arrays()[name]), name


def test_cvr_reads_the_trunk_and_does_not_shape_it() -> None:
    made, vectors, _, _ = rows(40)
    torch.manual_seed(0)
    model = Towers(VIEWS, DIM, SCALARS, CONFIG)
    with torch.no_grad():
        model.out.normal_()
    nothing = np.zeros((len(made), 2), np.float32)
    losses, weights = _losses(model, made, np.arange(40), torch.from_numpy(vectors), nothing)
    assert weights.tolist() == [320, made.clicked.sum(), 320]
    losses[1].backward()
    assert not model.first.weight.grad.any() and not model.view.grad.any()
    assert model.tower.weight.grad.any() and model.out.grad[1].any()
    assert not model.out.grad[0].any() and not model.out.grad[2].any()
    losses = _losses(model, made, np.arange(40), torch.from_numpy(vectors), nothing)[0]
    losses[2].backward()
    assert model.first.weight.grad.any() and model.view.grad.any()


def test_losses_by_hand() -> None:
    """A model that says nothing: logits are its biases, and the loss is the cross-entropy of those."""
    made, vectors, _, _ = rows(5)
    model = Towers(VIEWS, DIM, SCALARS, CONFIG).eval()
    with torch.no_grad():
        model.out.zero_()
        model.bias.copy_(torch.tensor([-1.5, 0.5, -2.5]))
    odds = np.full((len(made), 2), 0.5, np.float32)  # of the trees; to CVR they mean nothing yet
    losses, _ = _losses(model, made, np.arange(5), torch.from_numpy(vectors), odds)
    clicked, ordered = made.clicked > 0, made.ordered > 0

    def entropy(logit: float, share: float) -> float:
        return float(np.log1p(np.exp(logit)) - share * logit)

    expected = [
        entropy(-1.0, clicked.mean()),
        entropy(0.5, ordered[clicked].mean()) if clicked.any() else 0.0,
        entropy(-2.0, ordered.mean()),
    ]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lacks", ["orders", "clicks", "both are all there is"])
def test_odd_labels_give_finite_towers(lacks: str) -> None:
    made, vectors, _, _ = rows(60)
    if lacks == "orders":
        made.ordered[:] = 0
    elif lacks == "clicks":
        made.clicked[:], made.ordered[:] = 0, 0
    else:
        made.clicked[:], made.ordered[:] = 1, 1
    quick = CONFIG.model_copy(update={"epochs": 1})
    model, _ = fit_towers(made, np.arange(50), np.arange(50, 60), vectors, quick, SilentProgress())
    assert np.isfinite(predict(model, made, np.arange(60), vectors)).all()


def test_without_validation_all_epochs_are_run() -> None:
    made, vectors, _, _ = rows(60)
    quick = CONFIG.model_copy(update={"epochs": 3})
    _, curve = fit_towers(made, np.arange(60), np.zeros(0, np.int64), vectors, quick, SilentProgress())
    assert [entry["epoch"] for entry in curve] == [1, 2, 3] and set(curve[0]) == {"epoch", "loss"}


def test_the_graph_says_what_the_towers_say(fitted, tmp_path) -> None:
    made, vectors, _, _, held, model, _ = fitted
    model = copy.deepcopy(model)
    model.network.mean += 0.3
    model.network.scale *= 2
    write_graph(model.arrays(), tmp_path / FILE)
    some = held[:5]
    at = made.of(some)
    feeds = {
        "views": made.views[some].astype(np.float32),
        "vectors": vectors[made.item[at]].astype(np.float32).reshape(5, -1, DIM),
        "scalars": 9 * made.scalars[at].reshape(5, -1, SCALARS),  # some beyond what is clipped
    }
    asked = Rows(made.views, made.counts, made.item, 9 * made.scalars, made.place, made.clicked, made.ordered)
    rates = Runtime(threads=1).session(tmp_path / FILE).run(feeds)["rates"]
    assert rates.shape == (5, 8, len(TOWERS))
    np.testing.assert_allclose(rates.reshape(-1, 3), predict(model, asked, some, vectors), atol=1e-5)
    one = {name: array[:1, :1] if name != "views" else array[:1] for name, array in feeds.items()}
    np.testing.assert_allclose(
        Runtime(threads=1).session(tmp_path / FILE).run(one)["rates"], rates[:1, :1], atol=1e-6
    )


def test_what_was_saved_says_the_same(fitted) -> None:
    made, vectors, _, _, held, model, _ = fitted
    again = FittedTowers.of_arrays(model.arrays(), CONFIG)
    assert again.network.slope.item() != 0
    assert again.rounds == model.rounds > 0
    for stood in (True, False):
        expected = predict(model, made, held, vectors, stood)
        assert np.array_equal(predict(again, made, held, vectors, stood), expected)


def test_trees_are_those_of_lightgbm_and_unseen_is_unseen() -> None:
    import lightgbm

    random = np.random.default_rng(0)
    scalars = random.normal(size=(4_000, 3)).astype(np.float32).round(1)
    place = random.integers(8, size=4_000)
    clicked = (random.random(4_000) < 1 / (1 + np.exp(place - 2 * scalars[:, 0]))).astype(np.float32)
    data = lightgbm.Dataset(np.column_stack([scalars, place]).astype(np.float32), clicked)
    booster = lightgbm.train({"objective": "cross_entropy", "verbose": -1, "num_leaves": 8}, data, 20)
    expected = booster.predict(np.column_stack([scalars, place]), raw_score=True)
    np.testing.assert_allclose(Trees.of_booster(booster).log_odds(scalars, place), expected, atol=1e-5)
    noise = (random.random(4_000) < 0.3).astype(np.float32)
    found = boost(scalars, place, noise, np.arange(4_000) // 4, 60, 0)
    seen = found.trees.log_odds(scalars, place)
    assert auc(seen, noise > 0) > 0.55 > 0.53 > auc(found.unseen[:, 0], noise > 0)


def test_without_trees_the_network_stands_alone(tmp_path) -> None:
    made, vectors, _, _ = rows(60)
    quick = CONFIG.model_copy(update={"epochs": 1, "trees": 0})
    model, _ = fit_towers(made, np.arange(60), np.zeros(0, np.int64), vectors, quick, SilentProgress())
    assert not len(model.trees.roots)
    write_graph(model.arrays(), tmp_path / FILE)
    feeds = {
        "views": made.views.astype(np.float32),
        "vectors": vectors[made.item].astype(np.float32).reshape(60, -1, DIM),
        "scalars": made.scalars.reshape(60, -1, SCALARS),
    }
    rates = Runtime(threads=1).session(tmp_path / FILE).run(feeds)["rates"]
    np.testing.assert_allclose(
        rates.reshape(-1, 3), predict(model, made, np.arange(60), vectors, True), atol=1e-5
    )
