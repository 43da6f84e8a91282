"""Makes the Python code of ``onesearch.proto``: ``python -m onesearch.serving.proto.compile [FOLDER]``.

Needs grpcio-tools (the extra ``dev``). The result is committed, so that nobody else does.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
PROTO = "onesearch/serving/proto/onesearch.proto"


def compile_proto(target: Path) -> list[Path]:
    """Write the generated modules under ``target``, which stands for ``platform/``; return their paths."""
    from grpc_tools import protoc

    root = HERE.parents[2]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{root}", *outputs, PROTO]):
        raise SystemExit(f"{PROTO}: does not compile")
    return sorted((target / PROTO).parent.glob("onesearch_pb2*"))


if __name__ == "__main__":
    for path in compile_proto(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2]):
        print(path)
