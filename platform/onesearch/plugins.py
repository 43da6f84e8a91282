"""Finding plugins and checking what they offer.

A plugin is a module named by an entry point of the group ``onesearch``. One that cannot be used is refused
with its name, its distribution and the reason; the others go on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from onesearch import hookspecs
from onesearch.contracts.offers import ROLES, Offer, Role
from onesearch.errors import ConfigError, PluginError

GROUP = "onesearch"
CORE_DISTRIBUTION = "onesearch"
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Refused:
    """A plugin that is installed but cannot be used."""

    name: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"plugin '{self.name}' of distribution '{self.distribution}' is refused: {self.reason}"


@dataclass(frozen=True)
class Registered:
    """An offer with where it comes from."""

    role: Role
    offer: Offer
    plugin: str
    distribution: str
    version: str


class Plugins:
    """The offers of all usable plugins, by role and name, and the plugins that were refused."""

    def __init__(self, registered: Sequence[Registered], refused: Sequence[Refused]) -> None:
        self.registered = tuple(registered)
        self.refused = tuple(refused)
        self._by_name = {(entry.role, entry.offer.name): entry for entry in registered}

    def offers(self, role: Role) -> dict[str, Offer]:
        """The offers of a role by name."""
        return {entry.offer.name: entry.offer for entry in self.registered if entry.role == role}

    def find(self, role: Role, name: str) -> Registered:
        """An offer with its origin. Raises ConfigError naming the nearest one and what was refused."""
        found = self._by_name.get((role, name))
        if found is not None:
            return found
        names = sorted(self.offers(role))
        hint = nearest(name, names)
        known = f"; there are: {', '.join(names)}" if names else "; no plugin offers any"
        refused = "".join(f"\n  {refusal}" for refusal in self.refused)
        raise ConfigError(f"no {role} is named '{name}'{hint}{known}{refused}")

    def offer(self, role: Role, name: str) -> Offer:
        """An offer by name; raises as :meth:`find` does."""
        return self.find(role, name).offer

    def distribution_of(self, role: Role, name: str) -> tuple[str, str]:
        """Distribution and version that an offer comes from; raises as :meth:`find` does."""
        found = self.find(role, name)
        return found.distribution, found.version


@cache
def load_plugins() -> Plugins:
    """Every plugin installed in this environment, looked for once a process."""
    return collect(entry_points(group=GROUP))


def collect(points: Iterable[EntryPoint]) -> Plugins:
    """Import and check plugins: the parts in the box first, then by distribution and name."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registered: list[Registered] = []
    refused: list[Refused] = []
    for point in sorted(points, key=_precedence):
        try:
            offers = _offers_of(manager, point)
            _check_free(offers, registered)
        except PluginError as error:
            if manager.has_plugin(point.name):
                manager.unregister(name=point.name)
            refused.append(Refused(point.name, _distribution(point)[0], str(error)))
            continue
        distribution, version = _distribution(point)
        registered += [Registered(role, offer, point.name, distribution, version) for role, offer in offers]
    return Plugins(registered, refused)


def nearest(word: str, words: Iterable[str]) -> str:
    """``", did you mean 'x'?"`` for the nearest of some words, or nothing where none is near."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def _precedence(point: EntryPoint) -> tuple[bool, str, str]:
    distribution, _ = _distribution(point)
    return distribution != CORE_DISTRIBUTION, distribution, point.name


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist is not None else ("unknown", "unknown")


def _offers_of(manager: pluggy.PluginManager, point: EntryPoint) -> list[tuple[Role, Offer]]:
    """Import a plugin, register it and ask its hooks. Raises PluginError with the reason for refusing it."""
    if manager.has_plugin(point.name):
        raise PluginError(f"the plugin name '{point.name}' is taken")
    try:
        module = point.load()
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything; the others must go on
        raise PluginError(f"importing {point.value} raised {_said(error)}") from error
    try:
        if manager.register(module, name=point.name) is None:
            raise PluginError("it is blocked")
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"its hooks do not fit: {' '.join(str(error).split())}") from error
    offers: list[tuple[Role, Offer]] = []
    for caller in manager.get_hookcallers(module) or ():
        role = next((role for role in ROLES if role == caller.name), None)
        if role is None:
            raise PluginError(f"it implements an unknown hook '{caller.name}'{nearest(caller.name, ROLES)}")
        for implementation in caller.get_hookimpls():
            if implementation.plugin is module:
                offers += [(role, offer) for offer in _ask(role, implementation.function)]
    if not offers:
        raise PluginError(f"it offers nothing: no @hookimpl among {', '.join(ROLES)}")
    return offers


def _ask(role: Role, hook: Any) -> Sequence[Offer]:
    try:
        answer = hook()
    except (Exception, SystemExit) as error:  # as above
        raise PluginError(f"its hook '{role}' raised {_said(error)}") from error
    if isinstance(answer, Offer) or not isinstance(answer, Sequence):
        raise PluginError(f"its hook '{role}' returned {type(answer).__name__}, not a sequence of offers")
    for offer in answer:
        _check_offer(role, offer)
    return answer


def _check_offer(role: Role, offer: Any) -> None:
    if not isinstance(offer, Offer):
        raise PluginError(f"its hook '{role}' returned a {type(offer).__name__} where an Offer belongs")
    where = f"{role} {offer.name!r}"
    if not (isinstance(offer.name, str) and _NAME.fullmatch(offer.name)):
        raise PluginError(f"{where}: a name is a lower-case letter followed by letters, digits, '-' or '_'")
    for half, path in (("learner", offer.learner), ("server", offer.server)):
        if not (isinstance(path, str) and _IMPORT_PATH.fullmatch(path)):
            raise PluginError(f"{where}: {half} {path!r} is not an import path like 'package.module:Class'")
    if not (isinstance(offer.config, type) and issubclass(offer.config, BaseModel)):
        raise PluginError(f"{where}: config {offer.config!r} is not a pydantic model")
    try:
        offer.config()
    except ValidationError as error:
        fields = _fields(error)
        model = offer.config.__name__
        raise PluginError(f"{where}: every field of {model} needs a default, not so: {fields}") from error
    try:
        offer.config.model_validate(offer.quick)
    except ValidationError as error:
        raise PluginError(f"{where}: its quick settings do not fit: {_fields(error)}") from error


def _fields(error: ValidationError) -> str:
    return ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())


def _check_free(offers: Sequence[tuple[Role, Offer]], registered: Sequence[Registered]) -> None:
    taken = {
        (known.role, known.offer.name): f"by '{known.plugin}' of {known.distribution}" for known in registered
    }
    for role, offer in offers:
        if (role, offer.name) in taken:
            raise PluginError(f"the {role} name '{offer.name}' is taken {taken[role, offer.name]}")
        taken[role, offer.name] = "twice by itself"


def _said(error: BaseException) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
