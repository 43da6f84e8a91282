"""Plugins that do not fit are refused by name, distribution and reason; the others go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions, entry_points
from pathlib import Path

import pytest
from onesearch.contracts.offers import ROLES
from onesearch.errors import ConfigError, PluginError
from onesearch.plugins import GROUP, Plugins, collect, load_plugins

GOOD = """
from onesearch.contracts import Offer
from onesearch.hookspecs import hookimpl
from pydantic import BaseModel

class Config(BaseModel):
    size: int = 3

@hookimpl
def {role}():
    return [Offer("{name}", Config, "{module}:Learner", "{module}:Server", "a test")]
"""
HOOK = "from onesearch.hookspecs import hookimpl\n@hookimpl\ndef reward():\n    "
BAD = {
    "breaks_on_import": ("raise RuntimeError('no licence\\nsecond line')", "RuntimeError: no licence"),
    "leaves": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "wants_torch": ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
    "offers_nothing": ("x = 1", "it offers nothing"),
    "unknown_hook": (GOOD.format(role="tokeniser", name="x", module="m"), "did you mean 'tokenizer'?"),
    "wrong_arguments": (
        GOOD.format(role="reward", name="x", module="m").replace("reward()", "reward(shop)"),
        "its hooks do not fit",
    ),
    "raises": (HOOK + "1 / 0", "ZeroDivisionError"),
    "no_sequence": (HOOK + "return None", "returned NoneType, not a sequence"),
    "no_offer": (HOOK + "return ['relevance']", "a str where"),
    "bad_name": (GOOD.format(role="reward", name="Mine!", module="m"), "a name is a lower-case letter"),
    "bad_path": (GOOD.format(role="reward", name="x", module="../m.py"), "is not an import path"),
    "no_default": (
        GOOD.format(role="reward", name="x", module="m").replace("size: int = 3", "size: int"),
        "every field of Config needs a default, not so: size",
    ),
    "bad_quick": (
        GOOD.format(role="reward", name="x", module="m").replace('"a test"', "quick={'size': 'big'}"),
        "its quick settings do not fit: size",
    ),
}  # fmt: skip


class Shelf:
    """A folder of distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, distribution: str, source: str, plugin: str | None = None, version: str = "1.2") -> None:
        module = f"plugin_{distribution.replace('-', '_')}"
        (self.folder / f"{module}.py").write_text(source.replace("{module}", module))
        about = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (about / "entry_points.txt").write_text(f"[onesearch]\n{plugin or distribution} = {module}\n")

    def plugins(self) -> Plugins:
        found: list[Distribution] = list(distributions(path=[str(self.folder)]))
        return collect(point for one in found for point in one.entry_points if point.group == GROUP)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Shelf(tmp_path)
    for module in set(sys.modules) - before:
        if module.startswith("plugin_"):
            del sys.modules[module]


@pytest.mark.parametrize("what", BAD)
def test_bad_plugin_is_refused_and_others_go_on(shelf: Shelf, what: str) -> None:
    source, reason = BAD[what]
    shelf.add("bad-one", source, plugin=what)
    shelf.add("good-one", GOOD.replace("{role}", "reward").replace("{name}", "mine"))
    plugins = shelf.plugins()
    assert list(plugins.offers("reward")) == ["mine"]
    [refused] = plugins.refused
    assert (refused.name, refused.distribution) == (what, "bad-one")
    assert reason in refused.reason
    assert str(refused) == f"plugin '{what}' of distribution 'bad-one' is refused: {refused.reason}"
    assert "\n" not in refused.reason


def test_taken_component_name(shelf: Shelf) -> None:
    for distribution in ("alpha", "beta"):
        shelf.add(distribution, GOOD.replace("{role}", "reward").replace("{name}", "mine"))
    plugins = shelf.plugins()
    assert plugins.distribution_of("reward", "mine") == ("alpha", "1.2")
    [refused] = plugins.refused
    assert (refused.name, refused.reason) == ("beta", "the reward name 'mine' is taken by 'alpha' of alpha")


def test_the_box_keeps_its_names(shelf: Shelf) -> None:
    """A stranger's distribution that sorts before ours does not take our names."""
    shelf.add("a-stranger", GOOD.replace("{role}", "tokenizer").replace("{name}", "khqe"))
    plugins = collect(entry_points(group=GROUP))
    assert plugins.distribution_of("tokenizer", "khqe")[0] == "onesearch"
    assert [refused.distribution for refused in plugins.refused] == ["a-stranger"]


def test_taken_plugin_name(shelf: Shelf) -> None:
    shelf.add("alpha", GOOD.replace("{role}", "reward").replace("{name}", "mine"), plugin="same")
    shelf.add("beta", GOOD.replace("{role}", "reward").replace("{name}", "other"), plugin="same")
    plugins = shelf.plugins()
    assert list(plugins.offers("reward")) == ["mine"]
    assert plugins.refused[0].reason == "the plugin name 'same' is taken"


def test_refused_plugin_leaves_no_half(shelf: Shelf) -> None:
    """One bad offer refuses the whole plugin: its good offers are not registered either."""
    two = GOOD + '\n@hookimpl\ndef tokenizer():\n    return [Offer("Bad Name", Config, "m:L", "m:S")]\n'
    shelf.add("alpha", two.replace("{role}", "reward").replace("{name}", "mine"))
    assert not any(shelf.plugins().offers(role) for role in ROLES)


def test_unknown_name_tells_the_nearest_and_what_was_refused(shelf: Shelf) -> None:
    shelf.add("alpha", GOOD.replace("{role}", "reward").replace("{name}", "mine"))
    shelf.add("beta", "1/0")
    with pytest.raises(
        ConfigError, match=r"no reward is named 'mien', did you mean 'mine'\?.*mine\n.*'beta'"
    ) as caught:
        shelf.plugins().find("reward", "mien")
    assert "ZeroDivisionError" in str(caught.value)


def test_what_is_in_the_box() -> None:
    plugins = load_plugins()
    assert [refused for refused in plugins.refused if refused.distribution == "onesearch"] == []
    names = {role: {e.offer.name for e in plugins.registered if e.role == role} for role in ROLES}
    assert all(names.values())
    assert {entry.plugin for entry in plugins.registered} >= {"khqe", "museq", "seq2seq", "pars"}


@pytest.mark.parametrize(
    "path", ["no_such_package.module:Class", "onesearch.errors:NoSuch", "onesearch.errors:PluginError"]
)
def test_halves_that_cannot_be_used(path: str, shelf: Shelf) -> None:
    shelf.add(
        "alpha", GOOD.replace("{role}", "reward").replace("{name}", "mine").replace("{module}:Server", path)
    )
    offer = shelf.plugins().offer("reward", "mine")
    with pytest.raises(PluginError, match=f"component 'mine'.*{path.split(':')[1]}"):
        offer.server_class()
