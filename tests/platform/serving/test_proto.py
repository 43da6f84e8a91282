from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("grpc_tools")
from onesearch.serving.proto.compile import HERE, compile_proto


def test_the_committed_code_is_what_the_protocol_makes(tmp_path: Path) -> None:
    made = compile_proto(tmp_path)
    assert [path.name for path in made] == ["onesearch_pb2.py", "onesearch_pb2.pyi", "onesearch_pb2_grpc.py"]
    for path in made:
        assert path.read_text() == (HERE / path.name).read_text(), f"run python -m {compile_proto.__module__}"
