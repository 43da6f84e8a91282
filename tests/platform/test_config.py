"""The configuration: defaults, wrong keys with the nearest right ones, and the way back to TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onesearch._toml import write_toml
from onesearch.config import ServingConfig, TrainingConfig, load_config, parse_config
from onesearch.contracts.offers import ROLES, Offer, Role
from onesearch.errors import ConfigError
from onesearch.plugins import Plugins, Registered
from pydantic import BaseModel, Field


class Inner(BaseModel):
    rate: float = 0.1


class Settings(BaseModel):
    """Lets extra keys pass, as pydantic does by default: the platform must not."""

    sizes: tuple[int, ...] = Field((512, 256), description="Codes of each level.")
    inner: Inner = Inner()
    maybe: Inner | None = None
    note: str | None = None
    shares: dict[str, float] = Field(default_factory=lambda: {"a b": 0.5})


def _registered(role: Role, name: str) -> Registered:
    return Registered(role, Offer(name, Settings, "m:L", "m:S"), "p", "d", "1")


IN_THE_BOX: dict[Role, str] = {
    "tokenizer": "khqe", "user_encoder": "museq", "generator": "seq2seq", "reward": "pars"
}  # fmt: skip
PLUGINS = Plugins([_registered(r, n) for r, n in IN_THE_BOX.items()] + [_registered("reward", "mine")], [])


def test_node_vectors_of_older_releases_are_understood() -> None:
    """They were asked for by true and false."""
    said = [ServingConfig(node_vectors=old).node_vectors for old in (True, False)]  # type: ignore[arg-type]
    assert said == ["exact", "codes"]


def test_nothing_is_a_whole_configuration() -> None:
    config = parse_config("", plugins=PLUGINS)
    assert config.names == IN_THE_BOX
    assert config.component("tokenizer") == (PLUGINS.offer("tokenizer", "khqe"), Settings())
    assert (config.training, config.serving) == (TrainingConfig(), ServingConfig())
    assert (config.serving.beams, config.serving.threads, config.serving.host) == (512, 2, "127.0.0.1")


def test_values_arrive() -> None:
    text = '[reward]\nname = "mine"\n[reward.mine]\nsizes = [4]\ninner = {rate = 2}\n[serving]\nbeams = 8\n'
    config = parse_config(text, plugins=PLUGINS)
    offer, settings = config.component("reward")
    assert offer.name == "mine"
    assert settings == Settings(sizes=(4,), inner=Inner(rate=2.0))
    assert config.serving.beams == 8


WRONG = [
    ("[tokeniser]", "unknown table 'tokeniser', did you mean 'tokenizer'?"),
    ('[tokenizer]\nname = "kqhe"', "[tokenizer] no tokenizer is named 'kqhe', did you mean 'khqe'?"),
    ("[tokenizer]\nname = 3", "[tokenizer] name: a string belongs here, not 3"),
    ("[tokenizer.khqe]\nsize = [1]", "[tokenizer.khqe]: unknown key 'size', did you mean 'sizes'?"),
    (
        "[tokenizer.khqe.inner]\nrates = 1",
        "[tokenizer.khqe.inner]: unknown key 'rates', did you mean 'rate'?",
    ),
    (
        "[tokenizer.khqe.maybe]\nrates = 1",
        "[tokenizer.khqe.maybe]: unknown key 'rates', did you mean 'rate'?",
    ),
    ("[tokenizer.kqhe]", "[tokenizer]: unknown key 'kqhe', did you mean 'khqe'?"),
    ("[reward.mine]\nnote = 1", "[reward.mine] note = 1: Input should be a valid string"),
    ("[serving]\nbeam = 1", "[serving]: unknown key 'beam', did you mean 'beams'?"),
    ("[serving]\nbeams = 0", "[serving] beams = 0: Input should be greater than or equal to 1"),
    ("[serving]\nport = 70000", "[serving] port = 70000"),
    ("[training]\nheld_out = 1.0", "[training] held_out = 1.0: Input should be less than 1"),
    ("serving = 1", "'serving' is a table: write [serving], not serving = 1"),
    ("[reward]\nmine = 1", "'reward.mine' is a table"),
    ("[serving", "not TOML: "),
    ("xyzzy = 1", "unknown table 'xyzzy'; there are: tokenizer, user_encoder, generator"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_input_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "shop.toml", PLUGINS)
    assert f"shop.toml: {message}" in str(caught.value)
    assert caught.value.exit_status == 2


def test_all_problems_of_a_table_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config('[serving]\nbeams = "x"\nport = -1', plugins=PLUGINS)
    assert [line.split(" = ")[0].split()[-1] for line in str(caught.value).splitlines()] == ["beams", "port"]


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read"):
        load_config(tmp_path / "missing.toml", PLUGINS)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml: cannot be read"):
        load_config(tmp_path / "binary.toml", PLUGINS)
    (tmp_path / "good.toml").write_text("[training]\nseed = 7")
    assert load_config(tmp_path / "good.toml", PLUGINS).training.seed == 7


@pytest.mark.parametrize("documented", [False, True])
def test_dump_reads_back(documented: bool) -> None:
    text = '[reward]\nname = "mine"\n[reward.mine]\nsizes = []\nnote = "\\u0001 \\"台灯\\""\n'
    text += "[training]\nseed = 3\n"
    config = parse_config(text, plugins=PLUGINS)
    dumped = config.dump(documented)
    again = parse_config(dumped, plugins=PLUGINS)
    assert (again.names, again.settings, again.training, again.serving) == (
        config.names, config.settings, config.training, config.serving,
    )  # fmt: skip
    assert again.dump(documented) == dumped
    assert ("# Codes of each level." in dumped) is documented
    assert config.tables() == tomllib.loads(dumped)


def test_every_field_in_the_box_is_documented_and_has_a_default() -> None:
    config = load_config()
    models: list[type[BaseModel]] = [
        TrainingConfig,
        ServingConfig,
        *(type(config.settings[role]) for role in ROLES),
    ]
    while models:
        model = models.pop()
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            assert not field.is_required(), f"{model.__name__}.{name} has no default"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                models.append(field.annotation)
    assert load_config().dump() == parse_config(config.dump()).dump()


values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=5))
def test_toml_round_trip(table: dict[str, object]) -> None:
    assert tomllib.loads(write_toml({"t": table})) == {"t": table}
