"""SIDs beside the authors' code; prints JSON.

``python benchmarks/khqe.py --store S [--peer CHECKOUT] [--faiss]``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from onesearch_khqe.bench import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a store; the demo catalogue without it")
    parser.add_argument("--peer", type=Path, help="a checkout of the authors' repository (onesearch-family)")
    parser.add_argument("--faiss", action="store_true", help="also the same fit by faiss")
    parser.add_argument("--threads", type=int, default=0, help="threads of every row; 0: all cores")
    parser.add_argument("--work", type=Path, help="folder that keeps the vectors between runs")
    options = parser.parse_args()
    print(json.dumps(run(**vars(options)), indent=2))
