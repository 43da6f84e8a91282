"""Constrained decoding beside its peers: ``python benchmarks/decode.py`` prints one JSON object."""

from __future__ import annotations

import argparse
import json

from onesearch_seq2seq.bench import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", default="small", help="sizes of the network, with commas (tiny, small, base)"
    )
    parser.add_argument("--beams", default="128,512", help="beam widths, with commas")
    parser.add_argument("--items", type=int, default=54_667)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peers", action="store_true", help="only our own engines")
    given = parser.parse_args()
    widths = [int(width) for width in given.beams.split(",")]
    found = run(
        given.sizes.split(","),
        widths,
        given.items,
        repeats=given.repeats,
        threads=given.threads,
        peers=not given.no_peers,
    )
    print(json.dumps(found, indent=1))
