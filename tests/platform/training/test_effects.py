"""The table that a training ends with."""

from __future__ import annotations

from typing import Any

from onesearch.training.effects import COLUMNS, effects, printed
from onesearch.training.reports import StageReport


def searches(ndcg: float) -> dict[str, Any]:
    return {"searches": 9, "HR@10": 0.5, "R@10": 0.25, "NDCG@10": ndcg}


def change(mean: float) -> dict[str, Any]:
    return {"NDCG@10": {"change": mean, "error": 0.01}}


STAGES = [
    StageReport("tokenizer", 1.0, {"icr": 1}, False),
    StageReport("alignment", 2.0, {"held_out_nll": 3.0, "searches": searches(0.1)}, False),
    StageReport("personalisation", 3.0, {"held_out_nll": 2.5}, False),
    StageReport(
        "lists", 1.0, {"prior_only": searches(0.05), "searches": searches(0.2), "change": change(0.1)}, False
    ),
    StageReport("reward", 4.0, {"ndcg_10": {"generator": 0.2, "reward": 0.3}}, False),
    StageReport(
        "phase_1",
        5.0,
        {
            "kept": False, "worse": True, "reward_hacking": True, "kl": 0.1, "kl_origin": 0.2,
            "searches": searches(0.1), "change": change(-0.1), "reward": {"before": 1.0, "after": 2.0},
        },
        False,
    ),
    StageReport("phase_2", 6.0, {"skipped": "nobody clicked"}, False),
]  # fmt: skip


def test_a_row_for_whatever_changes_what_is_found() -> None:
    rows = {row["stage"]: row for row in effects(STAGES)}
    assert list(rows) == ["prior alone", "alignment", "personalisation", "reward", "phase_1", "phase_2"]
    assert rows["prior alone"]["NDCG@10"] == 0.05 and rows["alignment"]["held_out_nll"] == 3.0
    last = rows["personalisation"]
    assert last["NDCG@10"] == 0.2 and last["change"] == 0.1, "the lists are what it finds"
    assert rows["reward"]["NDCG@10"] == 0.3 and rows["reward"]["R@10"] is None
    hacked = rows["phase_1"]
    assert hacked["kl"] == 0.2 and hacked["reward"] == 2.0 and "reward hacking" in hacked["note"]
    assert "weights before kept" in hacked["note"]
    assert rows["phase_2"]["note"] == "passed over: nobody clicked" and rows["phase_2"]["NDCG@10"] is None


def test_printed_it_has_a_cell_a_column() -> None:
    table = printed(effects(STAGES))
    assert all(len(row) == len(COLUMNS) for row in table)
    assert table[4][3] == "-0.1000 ± 0.0200" and table[4][0] == "phase 1"


def test_what_a_training_left_out_is_left_out() -> None:
    assert effects([]) == []
    assert [row["stage"] for row in effects(STAGES[1:2])] == ["alignment"]
