"""The conformance suite: what the contracts promise, as checks that run against any registered component.

For a plugin's author, with pytest (the component is fitted once, on a tiny world of its own)::

    import pytest
    from onesearch.contracts import conformance

    @pytest.mark.parametrize("check", conformance.checks("reward", "mine"), ids=str)
    def test_contract(check):
        check()

The same from the command line: ``onesearch plugins check``. A check raises AssertionError saying which
promise is not kept and how; any other exception is a promise not kept as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onesearch.contracts.conformance._common import ComponentSuite, Subject
from onesearch.contracts.conformance._generator import GeneratorSuite
from onesearch.contracts.conformance._reward import RewardSuite
from onesearch.contracts.conformance._tokenizer import TokenizerSuite
from onesearch.contracts.conformance._user_encoder import UserEncoderSuite
from onesearch.contracts.offers import Role
from onesearch.plugins import Plugins, load_plugins

__all__ = ["Check", "checks"]

_SUITES: dict[Role, type[ComponentSuite]] = {
    "tokenizer": TokenizerSuite,
    "user_encoder": UserEncoderSuite,
    "generator": GeneratorSuite,
    "reward": RewardSuite,
}


@dataclass(frozen=True)
class Check:
    """One promise: call it to have it checked."""

    name: str
    promise: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Raise where the promise is not kept."""
        self.run()

    def __str__(self) -> str:
        return self.name


def checks(
    role: Role, name: str, settings: Mapping[str, Any] | None = None, plugins: Plugins | None = None
) -> list[Check]:
    """All checks of a component, cheapest first. Nothing runs before the first is called.

    Args:
        role: which of the four it is. name: the name it is offered by.
        settings: its configuration, as the TOML table holds it; None: the offer's quick one.
        plugins: where to look it up; None: what is installed.

    Raises:
        ConfigError: nothing of that name is offered, or the settings do not fit.
    """
    run = suite(Subject(role, name, settings, plugins or load_plugins()))
    # In the order of definition, the base's first.
    kinds = reversed(type(run).__mro__)
    methods = {key: None for kind in kinds for key in vars(kind) if key.startswith("check_")}
    return [_check(key, getattr(run, key)) for key in methods]


def suite(subject: Subject) -> ComponentSuite:
    """The suite of the subject's role."""
    return _SUITES[subject.role](subject)


def _check(key: str, method: Callable[[], None]) -> Check:
    return Check(
        key.removeprefix("check_"), " ".join((method.__doc__ or "").replace("``", "").split()), method
    )
