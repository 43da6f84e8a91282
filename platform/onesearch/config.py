"""The configuration: one typed TOML file.

Each of the four components is picked by name and set up in a table of its own, checked by the config class
of its offer::

    [tokenizer]
    name = "khqe"
    [tokenizer.khqe]
    code_sizes = [512, 256, 256]

    [training]
    seed = 0

    [serving]
    beams = 512

Tables of installed parts that are no component (``[nightly]``) are known by entry points of the group
``onesearch.settings``: a name and the class that checks the table.

Every field has a default, so that no file at all is a full configuration.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from onesearch._points import points
from onesearch._toml import write_toml
from onesearch.contracts.offers import ROLES, Offer, Role
from onesearch.errors import ConfigError
from onesearch.index import NodeVectors
from onesearch.plugins import Plugins, load_plugins, nearest

# Names only: they are looked up among what is installed, like any other.
IN_THE_BOX: dict[Role, str] = {
    "tokenizer": "khqe",
    "user_encoder": "museq",
    "generator": "seq2seq",
    "reward": "pars",
}
M = TypeVar("M", bound=BaseModel)
Port = Annotated[int, Field(ge=0, le=65535)]
SETTINGS_GROUP = "onesearch.settings"


class Section(BaseModel):
    """A table of the configuration: unknown keys are errors, the text under a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TrainingConfig(Section):
    """What all stages of training share; each component's own settings stand in its table."""

    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the queries that no learner sees: for early stopping, fitting weights, and the reward."""
    relevant_grade: float = Field(default=0.66, ge=0, le=1)
    """From this judged relevance in [0, 1] on a query and an item count as a pair."""
    half_life_days: float = Field(default=14.0, gt=0)
    """Half-life of an event's weight in pairs and popularity: what was clicked yesterday says more."""
    pseudo_queries: int = Field(default=2, ge=0)
    """Pseudo-queries cut from each item's title and attributes, as examples beside the logs."""
    vocabulary_size: int = Field(default=16_000, ge=512, le=250_000)
    """Number of text tokens learnt from titles and queries."""
    reward_queries: int = Field(default=2_000, ge=1)
    """At most so many held-out queries are searched to make the lists that the reward is fitted on."""
    reward_beams: int = Field(default=256, ge=1)
    """Beams of those searches."""
    reward_impressions: int = Field(default=300_000, ge=1)
    """Impressions of searches that the reward learns from at most: the newest."""
    stages: tuple[str, ...] = ("alignment", "cooccurrence", "personalisation")
    """Stages of supervised training that are run, in order. Personalisation is passed over where the store
    logs no searches, or where the user encoder does not look at shoppers."""
    personal_examples: int = Field(default=150_000, ge=1)
    """Clicks and orders that personalisation learns from at most: the newest."""
    sliding_window: bool = True
    """Whether personalisation learns from every click and order of a shopper, each with what came before it;
    without, from each shopper's last one only (for comparison)."""
    preference: tuple[str, ...] = ("phase_1", "phase_2")
    """Phases of preference learning that are run after the reward was fitted, in order: ``phase_1`` reranks
    the generator's own lists by the reward, ``phase_2`` knows interactions alone. None: an empty list."""
    preference_lists: int = Field(default=20_000, ge=1)
    """Searches that a phase learns from at most: the newest."""
    preference_beams: int = Field(default=64, ge=2)
    """Beams of the searches whose lists the reward reranks."""
    judged_searches: int = Field(default=500, ge=0)
    """Held-out searches that each stage of the generator is judged by; 0: none, and nothing guards the phases
    of preference learning but their likelihoods."""
    keep_worse: bool = False
    """Whether a phase of preference learning is kept that made those searches worse beyond chance. Either way
    the report says so."""
    refit_reward: bool = False
    """Whether the reward is fitted once more after the phases, on lists of the generator that they made."""
    refresh: bool = True
    """Whether a training that starts from a release continues its personalisation on the newest log (the
    generator's settings of ``refresh`` say for how long) before preferences are learnt."""


class ServingConfig(Section):
    """How a release is served."""

    beams: int = Field(default=512, ge=1, le=3840)
    """Beams of a search where the request does not say otherwise: wider finds more and takes longer."""
    certify: int = Field(default=0, ge=0, le=3840)
    """A search that does not say otherwise begins narrow and widens, up to ``beams``, only until so many of
    its best SIDs are proven exact; 0: it takes all beams at once. See docs/adaptive.md."""
    node_vectors: NodeVectors = "lean"
    """What guides the beams at the nodes of the tree. ``exact``: a vector of each node, the mean of the items
    below it, some 2 kB an item. ``lean``: what codes stand for, and a few bytes of what is left of a node
    with siblings; all that a search walks is then below 60 bytes an item. ``codes``: what codes stand for
    alone, which finds less. See docs/results/scale.md."""

    @field_validator("node_vectors", mode="before")
    @classmethod
    def _of_older_releases(cls, value: Any) -> Any:
        """True and False were all there was."""
        return {True: "exact", False: "codes"}[value] if isinstance(value, bool) else value

    threads: int = Field(default=2, ge=0)
    """Threads of a graph's session; 0: every core."""
    processes: Literal["one", "each"] = "one"
    """Processes of the steps of a search. ``one``: all steps in one. ``each``: one each, led by Triton's
    ensemble; steps can then run in numbers of their own, and each search pays for the ways between them."""
    gpu: bool = False
    """Whether the model that holds the generator runs as an instance of the first GPU. What searches there is
    the generator's own setting (``[generator.seq2seq] engine = "tensorrt"``). See docs/results/gpu.md."""
    host: str = "127.0.0.1"
    """Address that gateway and Triton listen on."""
    port: Port = 0
    """Port of the gateway (gRPC); 0: a free one."""
    triton_grpc_port: Port = 0
    """Triton's gRPC port; 0: a free one."""
    triton_http_port: Port = 0
    """Triton's HTTP port; 0: a free one."""
    triton_metrics_port: Port = 0
    """Triton's metrics port; 0: a free one."""
    ready_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds that all models may take to load."""
    deadline_ms: float = Field(default=2_000.0, gt=0)
    """Time a request gets where its client sets no deadline."""
    max_in_flight: int = Field(default=64, ge=1)
    """Searches worked on or waiting at once; more are turned away (RESOURCE_EXHAUSTED)."""
    max_batch: int = Field(default=32, ge=1)
    """Queries of one batch search."""
    max_query_bytes: int = Field(default=4_096, ge=16)
    """Longest query, in bytes of UTF-8."""
    max_k: int = Field(default=1_000, ge=1)
    """Most items of one answer; ``offset + k`` may not pass it either."""
    explore: float = Field(default=0.0, ge=0, le=0.5)
    """Probability that a place of a page shows an item from below the page, so that the log also knows
    what was not chosen; every item shown carries its propensity. See docs/operations.md."""
    explore_depth: int = Field(default=50, ge=1, le=1_000)
    """How many candidates below the page exploring draws from."""
    states: str = ""
    """Where shoppers are looked up: lmdb:PATH, a path, or redis://HOST:PORT; empty: they are not known."""
    states_timeout_ms: float = Field(default=20.0, gt=0)
    """Longest look-up of a shopper; past it a search goes on as for an unknown one."""
    catalogue: str = ""
    """Folder of the live catalogue that is followed while serving; empty: the release's own stays. See
    docs/catalogue.md."""
    spool: str = "var/spool"
    """Folder where events wait while Kafka does not answer; each gateway has its own."""
    spool_mb: int = Field(default=256, ge=1)
    """How large it may become; what comes after is dropped, and counted."""


class KafkaConfig(Section):
    """The Kafka cluster that events go through."""

    servers: str = ""
    """Bootstrap servers, HOST:PORT, several with commas between; empty: there is none."""
    client: Literal["kafka-python", "confluent"] = "kafka-python"
    """Which client library is used; ``confluent`` needs the extra of that name."""
    interactions: str = "onesearch.interactions"
    """Topic of what shoppers were shown and did."""
    catalogue: str = "onesearch.catalogue"
    """Topic of new, changed and withdrawn items."""
    dead_letters: str = "onesearch.dead-letters"
    """Topic of messages that could not be read."""
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to connect: with TLS (SSL), with a name and password (SASL), or both."""
    ca_file: str = ""
    """Certificates to trust (PEM); empty: those of the machine."""
    cert_file: str = ""
    """Our own certificate (PEM), where the cluster asks for one; its key is in ``key_file``."""
    key_file: str = ""
    """Key of ``cert_file`` (PEM)."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How name and password are shown."""
    sasl_username: str = ""
    """The name; the password stands in the environment variable ONESEARCH_KAFKA_PASSWORD."""
    delivery_timeout_s: float = Field(default=5.0, gt=0)
    """Seconds in which a message must be acknowledged by all replicas in sync."""


@dataclass(frozen=True)
class Config:
    """A whole, checked configuration.

    Attributes:
        names: role → name of the component picked.
        settings: role → its checked settings.
        training, serving, kafka: the platform's own tables.
        source: the file it was read from, for messages.
        others: the checked tables of other installed parts that the file has.
    """

    names: Mapping[Role, str]
    settings: Mapping[Role, BaseModel]
    training: TrainingConfig
    serving: ServingConfig
    kafka: KafkaConfig = field(default_factory=KafkaConfig)
    source: str = "defaults"
    plugins: Plugins = field(default_factory=load_plugins, repr=False, compare=False)
    others: Mapping[str, BaseModel] = field(default_factory=dict)

    def section(self, name: str, kind: type[M]) -> M:
        """The table of an installed part, all defaults where the file does not have it."""
        found = self.others.get(name)
        return found if isinstance(found, kind) else kind()

    def component(self, role: Role) -> tuple[Offer, BaseModel]:
        """The offer picked for a role, and its settings."""
        return self.plugins.offer(role, self.names[role]), self.settings[role]

    def dump(self, documented: bool = False) -> str:
        """Effective values as TOML that :func:`parse_config` reads; ``documented`` adds what they mean."""
        tables: dict[str, BaseModel | dict[str, Any]] = {}
        for role in ROLES:
            tables[role] = {"name": self.names[role]}
            tables[f"{role}.{self.names[role]}"] = self.settings[role]
        tables |= {"training": self.training, "serving": self.serving, "kafka": self.kafka}
        return write_toml(tables, documented)

    def tables(self) -> dict[str, Any]:
        """All effective values as the tables that the TOML text holds."""
        return tomllib.loads(self.dump())


def load_config(path: Path | str | None = None, plugins: Plugins | None = None) -> Config:
    """Read and check a file; None is all defaults. Raises ConfigError naming file, table and key."""
    if path is None:
        return parse_config("", "defaults", plugins)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    return parse_config(text, str(path), plugins)


def parse_config(text: str, source: str = "configuration", plugins: Plugins | None = None) -> Config:
    """Check a configuration given as TOML text. Raises ConfigError naming source, table and key."""
    plugins = plugins or load_plugins()
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from error
    parts = points(SETTINGS_GROUP)  # their classes are imported where the file has their tables
    _refuse_unknown(tables, (*ROLES, "training", "serving", "kafka", *parts), source, "")
    names: dict[Role, str] = {}
    settings: dict[Role, BaseModel] = {}
    for role in ROLES:
        names[role], settings[role] = _component(role, tables.get(role, {}), source, plugins)
    training = _checked(TrainingConfig, tables.get("training", {}), source, "training")
    serving = _checked(ServingConfig, tables.get("serving", {}), source, "serving")
    kafka = _checked(KafkaConfig, tables.get("kafka", {}), source, "kafka")
    others = {
        name: _checked(point.load(), tables[name], source, name)
        for name, point in parts.items()
        if name in tables
    }
    return Config(names, settings, training, serving, kafka, source, plugins, others)


def _component(role: Role, table: Any, source: str, plugins: Plugins) -> tuple[str, BaseModel]:
    """Name and settings of one role. Tables of components that are not picked are checked as well."""
    table = _as_table(table, source, role)
    name = table.get("name", IN_THE_BOX[role])
    if not isinstance(name, str):
        raise ConfigError(f"{source}: [{role}] name: a string belongs here, not {name!r}")
    offers = plugins.offers(role)
    _refuse_unknown(table, ("name", *offers), source, role)
    try:
        chosen = plugins.offer(role, name)
    except ConfigError as error:
        raise ConfigError(f"{source}: [{role}] {error}") from error
    checked = {
        key: _checked(offers[key].config, value, source, f"{role}.{key}")
        for key, value in table.items()
        if key in offers
    }
    return name, checked.get(name) or chosen.config()


def _checked(model: type[M], table: Any, source: str, where: str) -> M:
    table = _as_table(table, source, where)
    _refuse_unknown_fields(model, table, source, where)
    try:
        return model.model_validate(table)
    except ValidationError as error:
        problems = [_problem(problem, where) for problem in error.errors()]
        raise ConfigError("\n".join(f"{source}: {problem}" for problem in problems)) from error


def _problem(problem: Any, where: str) -> str:
    *above, key = [str(part) for part in problem["loc"]] or [""]
    table = ".".join([where, *above])
    return f"[{table}] {key} = {problem['input']!r}: {problem['msg']}"


def _as_table(value: Any, source: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: '{where}' is a table: write [{where}], not {where} = {value!r}")
    return value


def _refuse_unknown_fields(model: type[BaseModel], table: Mapping[str, Any], source: str, where: str) -> None:
    """Raise for a key that the model, or a model inside it, does not have, whatever it does with extras."""
    aliases = {info.alias for info in model.model_fields.values() if info.alias}
    _refuse_unknown(table, (*model.model_fields, *sorted(aliases)), source, where)
    for key, value in table.items():
        inner = _inner_model(model.model_fields.get(key))
        if inner is not None and isinstance(value, dict):
            _refuse_unknown_fields(inner, value, source, f"{where}.{key}")


def _inner_model(info: FieldInfo | None) -> type[BaseModel] | None:
    """The model that a field holds, alone or as ``Model | None``."""
    kind = info.annotation if info is not None else None
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return models[0] if len(models) == 1 else None


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], source: str, where: str) -> None:
    for key in table:
        if key not in known:
            kind = "table" if not where else "key"
            place = f"[{where}]: " if where else ""
            raise ConfigError(f"{source}: {place}unknown {kind} '{key}'{nearest(key, known) or _list(known)}")


def _list(known: tuple[str, ...]) -> str:
    return f"; there are: {', '.join(known)}" if known else "; it has none"
