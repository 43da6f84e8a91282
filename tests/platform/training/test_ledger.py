from __future__ import annotations

from pathlib import Path

import pytest
from onesearch.errors import ArtifactError, UsageError
from onesearch.training.ledger import Ledger, StageRecord, hash_of, locked

A, B = hash_of("a"), hash_of("b")


def finish(ledger: Ledger, inputs: str) -> None:
    _, draft = ledger.begin("fit", inputs)
    (draft / "made").write_text(inputs)
    ledger.finish("fit", StageRecord(inputs=inputs, seconds=1.5, figures={"x": 1}))


def test_a_finished_stage_is_known_to_the_next_process(tmp_path: Path) -> None:
    finish(Ledger(tmp_path), A)
    again = Ledger(tmp_path)
    record = again.done("fit", A)
    assert record is not None and record.figures == {"x": 1}
    assert (again.folder("fit", A) / "out" / "made").read_text() == A
    assert not (again.folder("fit", A) / "checkpoints").exists()
    assert again.done("fit", B) is None and again.done("other", A) is None


def test_an_interrupted_stage_keeps_its_checkpoints_and_loses_its_draft(tmp_path: Path) -> None:
    checkpoints, draft = Ledger(tmp_path).begin("fit", A)
    (checkpoints / "step").write_text("7")
    (draft / "half").write_text("written")
    checkpoints, draft = Ledger(tmp_path).begin("fit", A)
    assert (checkpoints / "step").read_text() == "7"
    assert list(draft.iterdir()) == []


def test_other_inputs_start_afresh_and_remove_what_was(tmp_path: Path) -> None:
    finish(Ledger(tmp_path), A)
    ledger = Ledger(tmp_path)
    checkpoints, _ = ledger.begin("fit", B)
    assert list(checkpoints.iterdir()) == []
    assert not ledger.folder("fit", A).exists()
    assert ledger.done("fit", A) is None


def test_a_record_without_its_output_is_not_done(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    finish(ledger, A)
    (ledger.folder("fit", A) / "out").rename(tmp_path / "elsewhere")
    assert ledger.done("fit", A) is None


def test_a_broken_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text('{"stages": {"fit": {"inp')
    with pytest.raises(ArtifactError, match="not a training ledger"):
        Ledger(tmp_path)


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "work"),
        pytest.raises(UsageError, match="another process"),
        locked(tmp_path / "work"),
    ):
        pass
    with locked(tmp_path / "work"):
        pass


def test_hashes_do_not_depend_on_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1}) != hash_of({"a": 1, "b": 3})
