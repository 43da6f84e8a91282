from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onesearch.errors import UsageError
from onesearch.events.spool import Spool
from onesearch.kafka.contract import Record


def records(start: int, count: int, size: int = 20) -> list[Record]:
    return [Record("t", b"k%d" % at, b"%d" % at + b"." * size) for at in range(start, start + count)]


def drained(spool: Spool, portion: int = 7) -> list[Record]:
    found = []
    while got := spool.peek(portion):
        found += got
        spool.done()
    return found


def test_first_in_first_out_over_segments_and_restarts(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 100_000, segment_bytes=200)
    assert spool.empty and spool.peek(5) == []
    assert spool.append(records(0, 10)) == 10 and spool.append(records(10, 10)) == 10
    assert not spool.empty and spool.peek(4) == records(0, 4) and spool.peek(4) == records(0, 4)
    spool.done()
    spool.close()
    spool = Spool(tmp_path / "spool", 100_000, segment_bytes=200)
    assert spool.append(records(20, 3)) == 3
    assert drained(spool) == records(4, 19)
    assert spool.empty and len(spool) == 0 and spool.lost == 0
    assert not list(tmp_path.glob("spool/*.spool"))
    assert spool.append(records(23, 1)) == 1 and drained(spool) == records(23, 1)
    spool.close()


def test_it_takes_no_more_than_it_may(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)
    kept = spool.append(records(0, 50))
    assert 10 < kept < 50 and len(spool) <= 1_000 and spool.append(records(50, 1)) == 0
    assert drained(spool) == records(0, kept)
    assert spool.append(records(50, 5)) == 5
    spool.close()


def test_what_a_killed_process_left_half_written_is_cut(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100_000)
    spool.append(records(0, 5))
    spool.close()
    (segment,) = tmp_path.glob("*.spool")
    whole = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"\x99\x00\x00\x00half")
    spool = Spool(tmp_path, 100_000)
    assert len(spool) == whole
    spool.append(records(5, 5))
    assert drained(spool) == records(0, 10) and spool.lost == 0
    spool.close()


def test_a_broken_segment_is_told_and_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100_000, segment_bytes=100)
    for at in range(0, 9, 3):
        spool.append(records(at, 3, 100))
    first = sorted(tmp_path.glob("*.spool"))[0]
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 0xFF
    first.write_bytes(content)
    assert drained(spool) == records(0, 1, 100) + records(3, 6, 100) and spool.lost == 1
    spool.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)
    with pytest.raises(UsageError, match="--spool"):
        Spool(tmp_path, 1_000)
    spool.close()
    Spool(tmp_path, 1_000).close()


def test_what_was_taken_in_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from onesearch.events.spool import Spool\n"
        "from onesearch.kafka.contract import Record\n"
        "spool = Spool(sys.argv[1], 10**7, 5000)\n"
        "for at in range(10**6):\n"
        "    spool.append([Record('t', b'k', b'%d' % at)])\n"
        "    print(at, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = -1
    for line in process.stdout:
        told = int(line)
        if told == 400:
            os.kill(process.pid, signal.SIGKILL)
    process.wait()
    spool = Spool(tmp_path, 10**7)
    numbers = [int(record.value) for record in drained(spool, 1_000)]
    assert numbers == list(range(len(numbers))) and len(numbers) >= told + 1
    spool.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(max_size=40), st.binary(max_size=300), st.booleans(), st.integers(1, 6)),
        max_size=40,
    )
)
def test_any_order_of_writing_reading_and_opening_keeps_the_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bytes, bytes, bool, int]]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, 10**6, segment_bytes=400)
    expected: list[Record] = []
    for key, value, again, portion in steps:
        record = Record("töpic", key or None, value)
        assert spool.append([record]) == 1
        expected.append(record)
        if again:
            spool.close()
            spool = Spool(folder, 10**6, segment_bytes=400)
        else:
            got = spool.peek(portion)
            assert got and got == expected[: len(got)]
            spool.done()
            expected = expected[len(got) :]
    assert drained(spool) == expected
    spool.close()
