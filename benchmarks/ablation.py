"""What each part is worth; prints JSON.

``python benchmarks/ablation.py --store S [--studies khqe-tables,museq] [--passes 3]``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from onesearch.evaluation.ablation import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a store with logs; the small simulated shop without it")
    parser.add_argument("--studies", default="", help="names with commas; all without it")
    parser.add_argument("--passes", type=int, default=3, help="how long every arm trains")
    parser.add_argument("--work", type=Path, help="folder for what can be used again")
    given = parser.parse_args()
    studies = tuple(name for name in given.studies.split(",") if name)
    print(json.dumps(run(studies, given.store, None, given.passes, given.work), indent=1))
