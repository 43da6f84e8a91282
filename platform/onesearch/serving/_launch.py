"""Becomes another program that gives way to the process that starts it, and is told to stop when that is
gone.

Run as a file: ``python _launch.py PARENT_PID STEPS PROGRAM [ARGUMENT …]``, where STEPS is what the program's
nice value rises by. Imports nothing of the platform, so that it takes milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ask the kernel for a signal at the parent's death, then become the program."""
    parent, steps, *command = arguments
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before we asked
        sys.exit(1)
    _give_way(int(steps))
    os.execv(command[0], command)


def _give_way(steps: int) -> None:
    """Let others go before this program, and what it starts, where there are not cores enough for all."""
    if steps:
        os.nice(steps)
        # Kernels that weigh a session as one (autogroup) heed nice values only inside it; not all do, and in
        # some containers the file cannot be written.
        with suppress(OSError):
            _AUTOGROUP.write_text(str(steps), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
