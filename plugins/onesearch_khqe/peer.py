"""Runs the authors' published tokenizer (onesearch-family, folder ``rq-opq``) on given vectors, for
comparison.

``python -m onesearch_khqe.peer REPOSITORY VECTORS.npy OUT.safetensors SIZES PARTS THREADS``: a process of its
own, since that code prints, pickles and sets up logging on import. Nothing of it is part of this package.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from onesearch.errors import OneSearchError, UsageError
from safetensors.numpy import load_file, save_file


@dataclass(frozen=True)
class PeerResult:
    """What the peer made: SIDs i32[N, L], its distortion, seconds of the residual layers and of OPQ."""

    sids: np.ndarray
    distortion: float
    residual_s: float
    opq_s: float


def run_peer(
    repository: Path, vectors: np.ndarray, sizes: Sequence[int], parts: Sequence[int], threads: int
) -> PeerResult:
    """Fit the authors' code. Raises UsageError when the path does not hold it, OneSearchError when it
    fails."""
    folder = next(
        (path for path in (repository / "rq-opq", repository) if (path / "rq_dynamic.py").is_file()), None
    )
    if folder is None:
        raise UsageError(
            f"--peer {repository}: no rq-opq/rq_dynamic.py there (a checkout of onesearch-family)"
        )
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary) / "vectors.npy", Path(temporary) / "out.safetensors"
        np.save(source, vectors)
        command = [sys.executable, "-m", "onesearch_khqe.peer", str(folder), str(source), str(target)]
        command += ["-".join(map(str, sizes)), "-".join(map(str, parts)), str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=temporary)
        if done.returncode or not target.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise OneSearchError(f"the peer's code failed: {last}")
        out = load_file(target)
    return PeerResult(
        out["sids"], float(out["distortion"]), float(out["seconds"][0]), float(out["seconds"][1])
    )


def main(folder: str, source: str, target: str, sizes: str, parts: str, threads: str) -> None:
    """The process: fit, time, write SIDs and distortion."""
    import faiss

    faiss.omp_set_num_threads(int(threads))
    sys.path.insert(0, folder)
    if find_spec("pandas") is None:
        sys.modules["pandas"] = types.ModuleType("pandas")  # imported there, never used in what is run here
    import rq_dynamic  # type: ignore[import-not-found]
    import rq_opq  # type: ignore[import-not-found]

    vectors = np.load(source, allow_pickle=False)
    counts, spaces = [int(size) for size in sizes.split("-")], [int(size) for size in parts.split("-")]
    start = time.perf_counter()
    books, ids = rq_dynamic.quantitative_codebook(".", "", vectors.copy(), counts, 0, len(counts), 0, 0)
    middle = time.perf_counter()
    rest = vectors.copy()
    for book, codes in zip(books, ids, strict=True):
        rest -= book[codes]
    encoder = rq_opq.FullDataOPQEncoder(len(spaces), spaces[0])
    between = time.perf_counter()
    encoder.train(rest)
    last = np.array(encoder.encode(rest))
    end = time.perf_counter()
    inverted: Any = faiss.downcast_index(encoder.index.index)
    books_of = faiss.vector_to_array(inverted.pq.centroids).reshape(len(spaces), spaces[0], -1)
    decoded = np.concatenate([book[codes] for book, codes in zip(books_of, last.T, strict=True)], axis=1)
    if inverted.by_residual:
        decoded = decoded + faiss.downcast_index(inverted.quantizer).reconstruct(0)
    turn = faiss.downcast_VectorTransform(encoder.index.chain.at(0))
    gaps = rest - turn.reverse_transform(np.ascontiguousarray(decoded, dtype=np.float32))
    sids = np.concatenate([np.stack(ids, 1), last], axis=1).astype(np.int32)
    arrays: dict[str, np.ndarray] = {
        "sids": sids,
        "distortion": np.array(np.square(gaps).sum(1).mean(), np.float64),
        "seconds": np.array([middle - start, end - between]),
    }
    save_file(arrays, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
