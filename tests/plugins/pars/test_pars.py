"""The reward of PARS: what it learns from which log, and that it serves what it learnt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onesearch.contracts.reward import Candidates
from onesearch.contracts.user_encoder import ShopperState
from onesearch.errors import ArtifactError, OneSearchError
from onesearch.progress import SilentProgress
from onesearch_pars.config import ParsConfig, RelevanceConfig
from onesearch_pars.learner import RelevanceLearner
from onesearch_pars.pars_learner import ParsLearner
from onesearch_pars.pars_server import ParsServer
from onesearch_pars.plugin import reward
from onesearch_pars.server import RelevanceServer
from onesearch_pars.sim import parted, recurring
from onesearch_pars.tuning import ALONE, DEFAULT, PARTS

SMALL = {"trees": 60, "epochs": 8, "batch_size": 256, "learning_rate": 0.01, "hidden": 32, "rank": 8}
CONFIG = ParsConfig(towers=SMALL)
FILES = ("pars.json", "pars.safetensors", "towers.onnx")


def fit(
    shop: Any, folder: Path, impressions: Any, config: ParsConfig = CONFIG, lists: Any = None
) -> dict[str, Any]:
    learner = ParsLearner(config)
    figures = learner.fit(lists or shop.lists, folder, SilentProgress(), impressions)
    learner.save(folder / "saved")
    learner.export(folder / "exported")
    json.dumps(figures)
    return figures


def opened(shop: Any, folder: Path, config: ParsConfig = CONFIG) -> ParsServer:
    return ParsServer.open(folder / "exported", shop.context(folder), config)


@pytest.fixture(scope="module")
def fitted(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pars")
    return folder, fit(shop, folder, shop.impressions())


def all_items(shop: Any, rows: int) -> Candidates:
    count = len(shop.items)
    return Candidates(
        np.tile(np.arange(count, dtype=np.int32), (rows, 1)), np.zeros((rows, count), np.float32)
    )


def test_it_says_what_it_learnt_from(shop, fitted) -> None:
    _, figures = fitted
    towers = figures["towers"]
    assert figures["source"] == "impressions" and figures["note"] == "towers learn from impressions"
    assert towers["impressions"] == 7_000 and towers["clicks"] > 500 and towers["orders"] > 100
    assert towers["auc"]["ctr"] > 0.75 and towers["auc_placed"]["ctr"] > towers["auc"]["ctr"]
    assert towers["auc"]["ctcvr"] > 0.75 and towers["auc"]["cvr"] > 0.6
    best = max(towers["baseline_auc"], towers["baseline_auc_placed"])
    assert towers["auc_placed"]["ctr"] > best + 0.05, "counters do not know the shopper"
    assert towers["calibration_error"]["ctr"] < 0.06
    assert (
        len(towers["calibration"]["ctr"]) == 10
        and sum(row["rows"] for row in towers["calibration"]["ctr"]) == towers["held_out"]
    )
    assert towers["consistency"]["correlation"] > 0.8
    ratio = towers["consistency"]["mean_ctcvr"] / towers["consistency"]["mean_ctr_cvr"]
    assert 0.6 < ratio < 1.6
    assert figures["relevance"]["source"] == "match" or figures["relevance"]["pairwise"] > 0.9
    assert figures["tuned"] and figures["mu"].keys() == figures["lambdas"].keys() == set(PARTS)
    assert figures["ndcg_10"]["reward"] > figures["ndcg_10"]["generator"]


def test_each_shopper_gets_their_colour_first(shop, fitted) -> None:
    folder, _ = fitted
    server = opened(shop, folder)
    shoppers = range(10)
    queries = [("lamp", "sofa", "rug")[shopper % 3] for shopper in shoppers]
    states = [shop.state(shopper) for shopper in shoppers]
    totals, parts = server.score(queries, shop.embed(queries), states, all_items(shop, 10))
    first = np.argsort(-totals, axis=1)[:, :4]
    assert np.mean(shop.colour[first] == np.arange(10)[:, None] % 5) > 0.8
    wanted = np.arange(10)[:, None] % 3
    assert np.mean(shop.thing[first] == wanted) > 0.9, "and it is what they asked for"
    assert parts.shape == (10, len(shop.items), 5) and server.parts == PARTS
    np.testing.assert_allclose(parts.sum(axis=2), totals, rtol=1e-4, atol=1e-4)


def test_the_parts_are_what_the_formula_says(shop, fitted) -> None:
    """R = λ1·CTR + λ2·CVR + λ3·CTCVR + 10·λ4·S_rel + λ5·listwise, with rates and S_rel in [0, 1]."""
    folder, figures = fitted
    lambdas = np.array([figures["lambdas"][name] for name in PARTS])
    _, parts = opened(shop, folder).score(["lamp"], shop.embed(["lamp"]), [shop.state(0)], all_items(shop, 1))
    for at, factor in enumerate([1, 1, 1, 10]):
        if lambdas[at]:
            part = parts[0, :, at] / (lambdas[at] * factor)
            assert (part > 0).all() and (part < 1).all(), PARTS[at]
        else:
            assert not parts[0, :, at].any()
    given = CONFIG.model_copy(update={"lambdas": (1.0, 1.0, 1.0, 1.0, 0.0)})
    told = fit(shop, folder / "given", shop.impressions(), given)
    assert not told["tuned"] and list(told["lambdas"].values()) == [1, 1, 1, 1, 0]
    totals, parts = opened(shop, folder / "given", given).score(
        ["lamp"], shop.embed(["lamp"]), [shop.state(0)], all_items(shop, 1)
    )
    assert (parts[0, :, :3] > 0).all() and (parts[0, :, :3] < 1).all() and (parts[0, :, 3] < 10).all()
    assert (totals < 13).all() and not parts[0, :, 4].any()


def test_padding_unknown_shoppers_and_no_candidates(shop, fitted) -> None:
    server = opened(shop, fitted[0])
    items = np.array([[3, 7, -1], [5, -1, -1], [-1, -1, -1]], np.int32)
    log_probs = np.where(items >= 0, -1.0, -np.inf).astype(np.float32)
    queries, states = ["lamp", "no such thing", ""], [ShopperState(), shop.state(3), ShopperState("new")]
    totals, parts = server.score(queries, shop.embed(queries), states, Candidates(items, log_probs))
    assert (np.isfinite(totals) == (items >= 0)).all() and not parts[items < 0].any()
    alone, _ = server.score(
        queries[:1], shop.embed(queries[:1]), states[:1], Candidates(items[:1, :2], log_probs[:1, :2])
    )
    np.testing.assert_allclose(alone, totals[:1, :2], atol=1e-4)
    nothing = Candidates(np.zeros((0, 4), np.int32), np.zeros((0, 4), np.float32))
    assert server.score([], np.zeros((0, 12), np.float32), [], nothing)[0].shape == (0, 4)


def test_the_learner_round_trips(shop, fitted, tmp_path) -> None:
    folder, _ = fitted
    ParsLearner.load(folder / "saved", CONFIG).export(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / "exported" / name).read_bytes(), name
    with pytest.raises(OneSearchError, match="fitted"):
        ParsLearner(CONFIG).save(tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_broken_artifact_is_named(shop, fitted, tmp_path, name, damage) -> None:
    (tmp_path / "exported").mkdir()
    for file in FILES:
        (tmp_path / "exported" / file).write_bytes((fitted[0] / "exported" / file).read_bytes())
    broken = tmp_path / "exported" / name
    content = broken.read_bytes()
    broken.unlink()
    if damage == "truncated":
        broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=name):
        opened(shop, tmp_path)


def test_another_catalogue_or_format_is_refused(shop, fitted, tmp_path) -> None:
    folder, _ = fitted
    with pytest.raises(ArtifactError, match="60 items, the catalogue has 50"):
        ParsServer.open(folder / "exported", shop.context(folder, 50), CONFIG)
    for file in FILES:
        (tmp_path / file).write_bytes((folder / "exported" / file).read_bytes())
    about = json.loads((tmp_path / "pars.json").read_text())
    (tmp_path / "pars.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(ArtifactError, match="format 99"):
        ParsServer.open(tmp_path, shop.context(tmp_path), CONFIG)
    (tmp_path / "pars.json").write_text(json.dumps({**about, "format": 2}))
    assert ParsServer.open(tmp_path, shop.context(tmp_path), CONFIG).parts == PARTS
    about["weights"].pop("kind_share")
    (tmp_path / "pars.json").write_text(json.dumps({**about, "format": 2}))
    with pytest.raises(ArtifactError, match="format 2; this version reads format 3"):
        ParsServer.open(tmp_path, shop.context(tmp_path), CONFIG)


# -- odd logs ----------------------------------------------------------------------------------------------


def test_without_impressions_it_learns_clicks_from_the_gains(shop, tmp_path) -> None:
    for impressions in (None, shop.without("impression").impressions()):
        figures = fit(shop, tmp_path, impressions)
        assert figures["source"] == "lists" and figures["note"].startswith("no impressions to learn from")
        assert figures["towers"]["good"] > 30 and figures["towers"]["auc"]["ctr"] > 0.6
        assert figures["lambdas"]["cvr"] == figures["lambdas"]["ctcvr"] == 0
    totals, parts = opened(shop, tmp_path).score(
        ["rug"], shop.embed(["rug"]), [shop.state(1)], all_items(shop, 1)
    )
    assert np.isfinite(totals).all() and not parts[0, :, 1:3].any()


def test_without_any_log_it_is_the_relevance_reward(shop, tmp_path) -> None:
    blank = shop.lists.pairs.clear()
    lists = replace(shop.lists, pairs=blank, serving_pairs=blank)
    figures = fit(shop, tmp_path, None, lists=lists)
    assert figures["source"] == "relevance" and figures["note"].endswith("that of the relevance reward")
    assert list(figures["lambdas"].values()) == ALONE.tolist()
    assert not (tmp_path / "exported" / "towers.onnx").exists()
    plain = RelevanceLearner(RelevanceConfig())
    plain.fit(lists, tmp_path, SilentProgress())
    plain.export(tmp_path / "plain")
    other = RelevanceServer.open(tmp_path / "plain", shop.context(tmp_path), RelevanceConfig())
    asked = ["lamp", "rug"], shop.embed(["lamp", "rug"]), [shop.state(0)] * 2, all_items(shop, 2)
    np.testing.assert_allclose(opened(shop, tmp_path).score(*asked)[0], other.score(*asked)[0], rtol=1e-5)


def test_without_orders_cvr_and_ctcvr_do_not_count(shop, tmp_path) -> None:
    figures = fit(shop, tmp_path, shop.without("order").impressions())
    assert figures["source"] == "impressions" and "0 orders are too few" in figures["note"]
    assert figures["lambdas"]["cvr"] == figures["lambdas"]["ctcvr"] == 0
    assert figures["towers"]["auc"]["cvr"] is None and figures["towers"]["auc"]["ctr"] > 0.75


def test_without_clicks_there_is_nothing_to_learn(shop, tmp_path) -> None:
    quiet = shop.without("click", "order")
    pairs, gain = quiet.pairs(), np.zeros_like(shop.lists.gain)
    lists = replace(shop.lists, gain=gain, pairs=pairs, serving_pairs=pairs)
    figures = fit(shop, tmp_path, quiet.impressions(), lists=lists)
    assert figures["source"] == "relevance" and list(figures["lambdas"].values()) == ALONE.tolist()


def test_a_log_of_one_shopper_and_a_robot(shop, tmp_path) -> None:
    one = replace(shop)
    one.__dict__["log"] = shop.log.with_columns(user_id=pl.lit("u0"))
    figures = fit(one, tmp_path, one.impressions())
    assert figures["source"] == "impressions" and figures["towers"]["auc"]["ctr"] is not None
    robot = replace(shop)
    clicks = shop.log.filter(pl.col("action") == "click").head(1)
    many = pl.concat([clicks] * 10_000).with_columns(
        event_id=pl.int_range(10_000).cast(pl.String) + "bot",
        user_id=pl.lit("bot"),
        request_id=pl.lit(None, pl.String),
    )
    robot.__dict__["log"] = pl.concat([shop.log, many])
    found = robot.impressions()
    assert found.item_counts.max() < 1_000 and len(found) == 7_000, (
        "a robot's clicks without impressions are capped"
    )


def test_embeddings_that_know_the_answers_are_not_believed(shop, tmp_path) -> None:
    figures = fit(shop, tmp_path, shop.impressions(fresh=False))
    assert not figures["towers"]["similar"] and "no search is fresh" in figures["note"]
    assert recurring(shop.lists) and not figures["tuned"] and "λ are the defaults" in figures["note"]
    mu = dict(figures["mu"])
    assert mu.pop("relevance") >= DEFAULT[PARTS.index("relevance")], "as much as its floor asks for"
    assert list(mu.values()) == pytest.approx(np.delete(DEFAULT, PARTS.index("relevance")).tolist())
    assert json.loads((tmp_path / "exported" / "pars.json").read_text())["similar"] is False


def test_what_is_held_out_is_what_the_lists_are_judged_by(shop) -> None:
    impressions = shop.impressions()
    parts = parted(impressions, shop.lists)
    whole = np.concatenate([parts.train, parts.valid, parts.held])
    assert sorted(whole.tolist()) == list(range(700))
    newest = shop.lists.pairs["last_ts"].max().timestamp()
    assert (impressions.times[parts.held] > newest).all() and len(parts.held) == 140
    assert impressions.times[parts.train].max() < impressions.times[parts.valid].min() < newest
    # A split by query: the lists' queries are in no known pair, and all of their searches are held out.
    by_query = replace(
        shop.lists,
        queries=["sofa"] * len(shop.lists.queries),
        pairs=shop.lists.pairs.filter(shop.lists.pairs["query"] != "sofa"),
    )
    assert not recurring(by_query)
    held = parted(impressions, by_query).held
    assert {impressions.queries[impressions.query[row]] for row in held} == {"sofa"}
    # Lists that say nothing: the newest fifth.
    bare = replace(by_query, queries=["none"] * len(shop.lists.queries))
    assert parted(impressions, bare).held.tolist() == list(range(560, 700))


def test_the_offer_names_both_halves() -> None:
    offer = next(offer for offer in reward() if offer.name == "pars")
    assert (offer.learner_class(), offer.server_class()) == (ParsLearner, ParsServer)
    ParsConfig.model_validate(offer.quick)
