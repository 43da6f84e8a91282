"""Makes the Python code of the ``.proto`` files: ``python -m onesearch.serving.proto.compile [FOLDER]``.

Needs grpcio-tools (the extra ``dev``). The result is committed, so that nobody else does.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PROTOS = {
    "onesearch/events/proto/events.proto": ("python", "pyi"),
    "onesearch/events/proto/reporting.proto": ("python", "pyi", "grpc_python"),
    "onesearch/serving/proto/onesearch.proto": ("python", "pyi", "grpc_python"),
}
"""Which files there are, and what is made of each."""


def compile_protos(target: Path) -> list[Path]:
    """Write the generated modules under ``target``, which stands for ``platform/``; return their paths."""
    from grpc_tools import protoc

    made: list[Path] = []
    for proto, kinds in PROTOS.items():
        outputs = [f"--{kind}_out={target}" for kind in kinds]
        if protoc.main(["protoc", f"-I{ROOT}", *outputs, proto]):
            raise SystemExit(f"{proto}: does not compile")
        made += sorted((target / proto).parent.glob(f"{Path(proto).stem}_pb2*"))
    return made


if __name__ == "__main__":
    for path in compile_protos(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT):
        print(path)
