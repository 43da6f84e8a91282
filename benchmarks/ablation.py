"""What each part of KHQE is worth; prints JSON.

``python benchmarks/ablation.py --store S [--passes 3]``
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from onesearch_khqe.ablation import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="a store with judgements or clicks")
    parser.add_argument("--passes", type=int, default=3, help="passes of every alignment")
    parser.add_argument("--work", type=Path, help="folder for what is encoded")
    options = parser.parse_args()
    print(json.dumps(run(**vars(options)), indent=2))
