from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("grpc_tools")
from onesearch.serving.proto.compile import PROTOS, ROOT, compile_protos


def test_the_committed_code_is_what_the_protocols_make(tmp_path: Path) -> None:
    made = compile_protos(tmp_path)
    assert len(made) == sum(map(len, PROTOS.values()))
    for path in made:
        committed = ROOT / path.relative_to(tmp_path)
        assert path.read_text() == committed.read_text(), f"run python -m {compile_protos.__module__}"
