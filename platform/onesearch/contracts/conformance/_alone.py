"""Run by a check in a process of its own: serves a component where nothing that learns can be imported."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from onesearch.contracts.offers import Role


def main(role: str, name: str, settings: str, world: str, exported: str, target: str) -> None:
    """Open the exported component, ask it, and write its answers to ``target``."""
    import numpy as np

    from onesearch.contracts import conformance
    from onesearch.contracts.conformance._common import TEXTS, Subject
    from onesearch.contracts.conformance._world import World
    from onesearch.plugins import load_plugins

    subject = Subject(cast(Role, role), name, None, load_plugins())
    subject.config = subject.offer.config.model_validate_json(settings)
    subject.world = World(Path(world))
    suite = conformance.suite(subject)
    answers: dict[str, Any] = suite.answers(subject.open(Path(exported)), TEXTS)
    np.savez(target, **answers)


if __name__ == "__main__":
    from onesearch.contracts.conformance._common import LEARNING_ONLY

    for module in LEARNING_ONLY:
        # What Python's import system takes for "known not to exist".
        sys.modules[module] = None  # type: ignore[assignment]
    main(*sys.argv[1:])
