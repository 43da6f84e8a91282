"""Literal numbers, worked out by hand or with plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from onesearch_khqe.losses import info_nce, rank_loss, relevance_loss

LEFT = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
RIGHT = torch.tensor([[0.8, 0.6], [0.6, 0.8]])


def test_info_nce() -> None:
    # scores/2: [[.8, .6], [.6, .8]]; every row and column gives log(1 + e^(2·(.6 − .8))).
    assert info_nce(LEFT, RIGHT, 2.0).item() == pytest.approx(0.5130153, abs=1e-6)
    assert math.log(1 + math.exp(-0.4)) == pytest.approx(0.5130153, abs=1e-6)


def test_info_nce_is_symmetric() -> None:
    right = torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    rows = (math.log(1 + math.exp(-0.8)) + math.log(1 + math.exp(0.6 - 1.0))) / 2
    columns = math.log(1 + math.exp(0.6 - 0.8)) * 0 + math.log(1 + math.exp(0.6 - 0.8)) * 0
    columns = (math.log(1 + math.exp(0.6 - 0.8)) + math.log(1 + math.exp(0.0 - 1.0))) / 2
    assert info_nce(LEFT, right, 1.0).item() == pytest.approx((rows + columns) / 2, abs=1e-6)


def test_info_nce_masks_what_is_the_same() -> None:
    same = torch.ones(2, 2, dtype=torch.bool)
    assert info_nce(LEFT, RIGHT, 2.0, same).item() == pytest.approx(0.0, abs=1e-6)
    assert info_nce(LEFT[:1], RIGHT[:1], 2.0).item() == 0.0


def test_rank_loss() -> None:
    query = torch.tensor([[1.0, 0.0]] * 3)
    better = torch.tensor([[0.9, 0.0], [0.5, 0.0], [0.2, 0.0]])
    worse = torch.tensor([[0.1, 0.0], [0.48, 0.0], [0.4, 0.0]])
    steps = torch.tensor([1.0, 1.0, 2.0])
    # gaps .8, .02, −.2 against margins .05, .05, .1: 0 + .03 + .3
    assert rank_loss(query, better, worse, steps, 0.05).item() == pytest.approx(0.11, abs=1e-6)
    assert rank_loss(query[:0], better[:0], worse[:0], steps[:0], 0.05).item() == 0.0


def test_rank_loss_pulls_the_better_item_closer() -> None:
    better = torch.tensor([[0.2, 0.1]], requires_grad=True)
    worse = torch.tensor([[0.4, 0.1]], requires_grad=True)
    rank_loss(torch.tensor([[1.0, 0.0]]), better, worse, torch.tensor([1.0]), 0.05).backward()
    assert better.grad is not None and worse.grad is not None
    assert better.grad[0, 0].item() == -1.0 and worse.grad[0, 0].item() == 1.0


def test_relevance_loss() -> None:
    query, item = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    grade = torch.tensor([1.0, 0.0])
    # σ(4·.5 − 1) = .7310586, σ(−1) = .2689414: both miss by .2689414
    got = relevance_loss(query, item, grade, torch.tensor(4.0), torch.tensor(-1.0))
    assert got.item() == pytest.approx(0.0723295, abs=1e-6)
