"""How gRPC waits for sockets is chosen before anything of it is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

VARIABLE = "GRPC_EXPERIMENTS"


@pytest.mark.parametrize(("given", "expected"), [(None, "-event_engine_client"), ("of_my_own", "of_my_own")])
def test_the_way_is_chosen_first_and_a_users_own_choice_stays(given: str | None, expected: str) -> None:
    code = (
        "import os, sys\n"
        "import onesearch.serving\n"
        "assert 'grpc' not in sys.modules\n"
        f"print(os.environ[{VARIABLE!r}])\n"
    )
    variables = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if given is not None:
        variables[VARIABLE] = given
    ended = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.startswith(expected)
