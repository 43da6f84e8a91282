"""What the Triton models do: tensors in, one step of :mod:`onesearch.serving.steps`, tensors out.

Triton's Python backend makes one process of each model. ``execute`` gets a list of requests; those of one
kind are put together, run once, and taken apart again. Tensors are those of the model's ``config.pbtxt``.
"""

from __future__ import annotations

import importlib
import json
import locale
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import numpy as np

from onesearch.catalogue.generations import Generation, Generations
from onesearch.compiling.runtime import Runtime
from onesearch.contracts.generator import Guide
from onesearch.contracts.reward import Candidates
from onesearch.contracts.user_encoder import Prompt, ShopperState
from onesearch.errors import OneSearchError, ServingError, UsageError
from onesearch.index import CatalogueIndex
from onesearch.releases.release import Release
from onesearch.serving import codecs, steps
from onesearch.serving.catalogue import ItemTable
from onesearch.serving.held import Held, NotHeldError
from onesearch.serving.requests import EXPLAINED_BEAMS, GUIDES, places_before

Tensors = dict[str, np.ndarray]
UserEncoderPart = tuple[CatalogueIndex, steps.UserEncoderServer]
P = TypeVar("P")
# What fills a tensor where a request is narrower than the widest of its batch; zero where not named.
_FILL = {"ITEMS": -1, "LOG_PROBS": -np.inf}
_LONGEST_ERROR = 1_000
NUMPY_TRAP = (
    "Triton's Python backend was built for numpy 1, but its Python has numpy {version}: it would silently"
    " make empty tensors. Serve from an environment with numpy<2 (make setup)."
)


class Model(ABC):
    """One model of the repository, as Triton's Python backend wants it."""

    reads: ClassVar[tuple[str, ...]]
    """Tensors that the step reads: the inputs of its ``config.pbtxt``."""
    outputs: tuple[str, ...]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the part of the release that this model runs."""
        # The backend's interpreter ignores environment and locale, so that text files would be read as ASCII.
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
        if int(np.__version__.split(".")[0]) >= 2:
            raise ServingError(NUMPY_TRAP.format(version=np.__version__))
        backend = importlib.import_module("triton_python_backend_utils")  # exists only inside Triton

        self._backend = backend
        about = json.loads(args["model_config"])
        self.outputs = tuple(tensor["name"] for tensor in about["output"])
        settings = {name: value["string_value"] for name, value in about["parameters"].items()}
        # Whoever started the server has verified the release; sizes are checked again.
        release = Release.open(Path(settings["release"]), verify=False)
        catalogue = settings["catalogue"]
        generations = Generations(Path(catalogue)) if catalogue else None
        try:
            self.open(release, Runtime(threads=int(settings["threads"])), generations)
        except Exception as error:
            raise ServingError(told(error)) from None

    @abstractmethod
    def open(self, release: Release, runtime: Runtime, generations: Generations | None = None) -> None:
        """Open components. ``generations`` are those of a live catalogue, where one is followed."""

    @abstractmethod
    def run(self, batch: Tensors) -> Tensors:
        """One step for a batch; every tensor's first axis is the batch."""

    def kind(self, tensors: Tensors) -> Hashable:
        """Requests of the same kind may share a batch."""
        return None

    def fit(self, request: Tensors, answer: Tensors) -> Tensors:
        """The answer to one request out of a batch, as if it had been alone."""
        return answer

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer a list of requests, one response each, in their order."""
        read = [self._read(request) for request in requests]
        answers = iter(self.answers([one for one in read if not isinstance(one, Exception)]))
        return [
            self._response(
                one if isinstance(one, Exception) else next(answers), request.requested_output_names()
            )
            for request, one in zip(requests, read, strict=True)
        ]

    def answers(self, batches: Sequence[Tensors]) -> list[Tensors | Exception]:
        """What :meth:`run` answers to each of several requests, or what it raised."""
        groups: dict[Hashable, list[int]] = {}
        for at, batch in enumerate(batches):
            groups.setdefault((self.kind(batch), _asked(batch)), []).append(at)
        answers: list[Any] = [None] * len(batches)
        for members in groups.values():
            for at, answer in zip(members, self._together([batches[at] for at in members]), strict=True):
                answers[at] = answer
        return answers

    def _together(self, batches: list[Tensors]) -> list[Tensors | Exception]:
        try:
            merged = self.run(merge(batches))
        except Exception as error:
            if len(batches) > 1:  # one bad request must not spoil the others
                return [self._together([batch])[0] for batch in batches]
            return [error]
        answers: list[Tensors | Exception] = []
        start = 0
        for batch in batches:
            end = start + len(batch[self.reads[0]])
            answers.append(self.fit(batch, {name: array[start:end] for name, array in merged.items()}))
            start = end
        return answers

    def _response(self, answer: Tensors | Exception, wanted: Sequence[str]) -> Any:
        if isinstance(answer, Exception):
            return self._backend.InferenceResponse(error=self._error(answer))
        tensors = [self._write(name, answer[name]) for name in self.outputs if name in wanted]
        return self._backend.InferenceResponse(output_tensors=tensors)

    def _read(self, request: Any) -> Tensors | Exception:
        found = {name: self._backend.get_input_tensor_by_name(request, name) for name in self.reads}
        missing = [name for name, tensor in found.items() if tensor is None]
        if missing:
            return UsageError(f"inputs are missing: {', '.join(missing)}")
        return {name: tensor.as_numpy() for name, tensor in found.items()}

    def _write(self, name: str, array: np.ndarray) -> Any:
        return self._backend.Tensor(name, np.ascontiguousarray(array))

    def _error(self, error: Exception) -> Any:
        """Errors of the request are told from errors of ours by their code."""
        codes = self._backend.TritonError
        code = codes.INVALID_ARG if isinstance(error, UsageError) else codes.INTERNAL
        return codes(told(error), codes.UNAVAILABLE if isinstance(error, NotHeldError) else code)


class TokenizerModel(Model):
    """Query text → e°, SID, notes."""

    reads = ("QUERY", "EXPLAIN")

    def open(self, release: Release, runtime: Runtime, generations: Generations | None = None) -> None:
        """Open the tokenizer."""
        self._tokenizer = cast(steps.TokenizerServer, release.server("tokenizer", release.context(runtime)))

    def run(self, batch: Tensors) -> Tensors:
        """Encode; keywords and meanings only where EXPLAIN asks for them."""
        queries = texts(batch["QUERY"])
        vectors, sids = steps.encode(self._tokenizer, queries)
        notes = [b""] * len(queries)
        for row in np.flatnonzero(batch["EXPLAIN"][:, 0]):
            found = self._tokenizer.keywords([queries[row]])[0]
            notes[row] = codecs.write_notes(found, self._tokenizer.describe(sids[row].tolist()))
        return {"QUERY_VEC": vectors, "QUERY_SID": sids, "NOTES": strings([[note] for note in notes])}


class UserEncoderModel(Model):
    """Shopper state and query → prompt, and with EXPLAIN how the shopper is seen."""

    reads = ("STATE", "QUERY", "QUERY_SID", "EXPLAIN", "CATALOGUE")

    def open(self, release: Release, runtime: Runtime, generations: Generations | None = None) -> None:
        """Open the user encoder."""
        context = release.context(runtime)
        opened = cast(steps.UserEncoderServer, release.server("user_encoder", context))

        def follow(generation: Generation, before: UserEncoderPart) -> UserEncoderPart:
            index = generation.load()
            server = release.renewed("user_encoder", before[1], replace(context, index=index))
            return index, cast(steps.UserEncoderServer, server)

        self.held = Held(context.index.generation, (context.index, opened), follow, generations)

    def run(self, batch: Tensors) -> Tensors:
        """Build prompts; explanations only where EXPLAIN asks for them."""
        index, user_encoder = self.held.at(named(batch, self.held))
        shoppers, queries, sids = states(batch["STATE"]), texts(batch["QUERY"]), batch["QUERY_SID"]
        built = steps.prompt(user_encoder, shoppers, queries, sids)
        views = [b""] * len(queries)
        asked = np.flatnonzero(batch["EXPLAIN"][:, 0])
        if len(asked):
            of_asked = [shoppers[row] for row in asked], [queries[row] for row in asked], sids[asked]
            explained = steps.explain_shoppers(user_encoder, index, *of_asked)
            for row, view in zip(asked, explained, strict=True):
                views[row] = codecs.write_view(view)
        return {
            "PROMPT_IDS": built.ids,
            "PROMPT_MASK": built.mask,
            "PREFIX": built.prefix,
            "SHOPPER": strings([[view] for view in views]),
        }


class GeneratorModel(Model):
    """Prompt → live items."""

    reads = (
        "PROMPT_IDS", "PROMPT_MASK", "PREFIX", "QUERY_VEC", "BEAMS", "CERTIFY", "GUIDE", "FILTERS",
        "CATALOGUE",
    )  # fmt: skip

    def open(self, release: Release, runtime: Runtime, generations: Generations | None = None) -> None:
        """Open the generator."""
        context = release.context(runtime)
        self._generator = cast(steps.GeneratorServer, release.server("generator", context))

        def follow(generation: Generation, before: steps.Trees) -> steps.Trees:
            return steps.Trees(generation.load())

        self.held = Held(context.index.generation, steps.Trees(context.index), follow, generations)

    def kind(self, tensors: Tensors) -> Hashable:
        """Padding would make vectors of prefixes that have none: those of one shape go together."""
        return tensors["PREFIX"].shape[1:]

    def run(self, batch: Tensors) -> Tensors:
        """Search."""
        trees = self.held.at(named(batch, self.held))
        prompt = Prompt(batch["PROMPT_IDS"], batch["PROMPT_MASK"], batch["PREFIX"])
        names = ("BEAMS", "GUIDE", "FILTERS", "CERTIFY")
        options = [
            steps.SearchOptions(int(beams), _guide(guide), codecs.read_filters(filters), int(certify))
            for beams, guide, filters, certify in zip(*(batch[name][:, 0] for name in names), strict=True)
        ]
        result, candidates = steps.retrieve(self._generator, trees, prompt, batch["QUERY_VEC"], options)
        return {
            "ITEMS": candidates.items,
            "LOG_PROBS": candidates.log_probs.astype(np.float32, copy=False),
            "GENERATION": np.full((len(options), 1), trees.generation, dtype=np.int64),
            "FOUND": column((result.leaves >= 0).sum(axis=1), np.int32),
            "EXACT": column(steps.exact_count(result), np.int32),
            "DROPPED": column(result.dropped, np.float32),
            "DROPPED_MASS": column(result.dropped_mass, np.float32),
            "BRANCHES": result.branches.astype(np.int32),
            "WIDTH": column(cast(np.ndarray, result.widths), np.int32),
        }


class RewardModel(Model):
    """Candidates → order, totals, parts."""

    reads = ("QUERY", "QUERY_VEC", "STATE", "ITEMS", "LOG_PROBS", "GENERATION", "RERANK", "CATALOGUE")

    def open(self, release: Release, runtime: Runtime, generations: Generations | None = None) -> None:
        """Open the reward."""
        context = release.context(runtime)

        def follow(generation: Generation, before: steps.RewardServer) -> steps.RewardServer:
            renewed = release.renewed("reward", before, replace(context, index=generation.load()))
            return cast(steps.RewardServer, renewed)

        opened = cast(steps.RewardServer, release.server("reward", context))
        self.held = Held(context.index.generation, opened, follow, generations)

    def kind(self, tensors: Tensors) -> Hashable:
        """With and without the reward the score has other parts; item numbers are of one generation."""
        return bool(tensors["RERANK"].all()), _different(tensors["GENERATION"])

    def fit(self, request: Tensors, answer: Tensors) -> Tensors:
        """Without the padding to the widest request; it was sorted behind everything else."""
        width = request["ITEMS"].shape[1]
        return answer | {name: answer[name][:, :width] for name in ("ORDER", "TOTALS", "PARTS")}

    def run(self, batch: Tensors) -> Tensors:
        """Score and sort."""
        own = searched(batch, self.held)
        rerank = bool(batch["RERANK"].all())
        if rerank != bool(batch["RERANK"].any()):
            raise UsageError("RERANK: one request has one value")
        reward = own if rerank else None
        queries, candidates = texts(batch["QUERY"]), Candidates(batch["ITEMS"], batch["LOG_PROBS"])
        ranked = steps.rank(reward, queries, batch["QUERY_VEC"], states(batch["STATE"]), candidates)
        names = [name.encode() for name in steps.part_names(reward)]
        return {
            "ORDER": ranked.order,
            "TOTALS": ranked.totals,
            "PARTS": ranked.parts,
            "PART_NAMES": strings([names] * len(queries)),
        }


class ResolverModel(Model):
    """One page of the order → rows of items."""

    reads = (
        "ITEMS", "LOG_PROBS", "ORDER", "TOTALS", "PARTS", "GENERATION", "DROPPED_MASS", "K", "OFFSET",
        "SHOWN", "CATALOGUE", "EXPLAIN",
    )  # fmt: skip

    def open(self, release: Release, runtime: Runtime, generations: Generations | None = None) -> None:
        """Read the item rows."""
        table = ItemTable.load(release.path / "index")
        self.held = Held(table.generation, table, lambda new, before: ItemTable.load(new.folder), generations)

    def kind(self, tensors: Tensors) -> Hashable:
        """Nothing is gained by putting pages of different lengths together."""
        return id(tensors)

    def run(self, batch: Tensors) -> Tensors:
        """Look the rows up; the best SIDs and what may be missing only where EXPLAIN asks for them."""
        table = searched(batch, self.held)
        return merge([self._page(table, batch, row) for row in range(len(batch["K"]))])

    @staticmethod
    def _page(table: ItemTable, batch: Tensors, row: int) -> Tensors:
        candidates = Candidates(batch["ITEMS"], batch["LOG_PROBS"])
        ranked = steps.Ranked(batch["ORDER"], batch["TOTALS"], batch["PARTS"])
        k, offset = int(batch["K"][row, 0]), int(batch["OFFSET"][row, 0])
        shown = batch["SHOWN"][row, 0]
        hidden = steps.seen(table.items, candidates, row, shown)
        at = steps.page(ranked, candidates, row, k, offset, hidden)
        rows = table.rows(candidates.items[row, at])
        beams, missing = [], None
        if batch["EXPLAIN"][row, 0]:
            mass, last = float(batch["DROPPED_MASS"][row, 0]), places_before(offset, shown) + k
            beams = steps.best_sids(table.sids, candidates, row, EXPLAINED_BEAMS)
            missing = steps.missing_bound(mass, candidates.log_probs[row], last)
        levels = table.sids.shape[1]
        # Not every client copes with tensors without elements: an empty page has one row of blanks.
        blank = not rows
        return {
            "COUNT": np.array([[len(rows)]], dtype=np.int32),
            "ITEM_ID": strings([[item.item_id.encode() for item in rows] or [b""]]),
            "TITLE": strings([[item.title.encode() for item in rows] or [b""]]),
            "CATEGORY": strings(
                [[codecs.CATEGORY_SEPARATOR.join(item.category).encode() for item in rows] or [b""]]
            ),
            "BRAND": strings([[item.brand.encode() for item in rows] or [b""]]),
            "PRICE": np.array([[np.nan if item.price is None else item.price for item in rows] or [np.nan]]),
            "IN_STOCK": np.array([[item.in_stock for item in rows] or [False]]),
            "SID": np.array([[item.sid for item in rows] or [(0,) * levels]], dtype=np.int32),
            "SCORE": np.zeros((1, 1), np.float32) if blank else ranked.totals[row : row + 1, at],
            "LOG_PROB": np.zeros((1, 1), np.float32) if blank else candidates.log_probs[row : row + 1, at],
            "SCORE_PARTS": ranked.parts[row : row + 1, at if len(at) else [0]],
            "BEAM_SIDS": np.array([[sid for sid, _ in beams] or [(0,) * levels]], dtype=np.int32),
            "BEAM_LOG_PROBS": np.array([[score for _, score in beams] or [-np.inf]], dtype=np.float32),
            "MISSING": np.array([[-1 if missing is None else missing]], dtype=np.int32),
        }


def told(error: Exception) -> str:
    """An error in few words: gRPC drops a status whose message is too long."""
    text = str(error) if isinstance(error, OneSearchError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]} …"


def merge(batches: Sequence[Tensors]) -> Tensors:
    """Put requests together along the batch axis; narrower ones are padded."""
    if len(batches) == 1:
        return batches[0]
    return {name: _stack(name, [batch[name] for batch in batches]) for name in batches[0]}


def _stack(name: str, arrays: list[np.ndarray]) -> np.ndarray:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) == 1:
        return np.concatenate(arrays)
    widest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    first = arrays[0]
    fill: Any = b"" if first.dtype == object else _FILL.get(name, 0)
    stacked = np.full((sum(map(len, arrays)), *widest), fill, dtype=first.dtype)
    start = 0
    for array in arrays:
        inside = tuple(slice(size) for size in array.shape[1:])
        stacked[(slice(start, start + len(array)), *inside)] = array
        start += len(array)
    return stacked


def named(batch: Tensors, held: Held[Any]) -> int:
    """The generation that a batch asks for, below 0: the newest. What it says is coming is opened as well."""
    number, coming = (int(value) for value in batch["CATALOGUE"][0])
    if coming >= 0:
        held.prepare(coming)
    return number


def searched(batch: Tensors, held: Held[P]) -> P:
    """The part of the generation that the generator searched, in whose item numbers candidates stand."""
    named(batch, held)
    return held.at(int(_only(batch, "GENERATION")))


def _only(batch: Tensors, name: str) -> int:
    """The one number that a tensor holds. Raises UsageError where a request has several."""
    values = batch[name].ravel()
    if (values != values[0]).any():
        raise UsageError(f"{name}: one request has one value")
    return int(values[0])


def _asked(batch: Tensors) -> bytes:
    """What of the catalogue a request asks for; requests of one batch ask for the same."""
    catalogue = batch.get("CATALOGUE")
    return b"" if catalogue is None else _different(catalogue)


def _different(rows: np.ndarray) -> bytes:
    """The different rows of a tensor; as a rule there is one, and nothing to be sorted."""
    return rows.tobytes() if len(rows) == 1 else np.unique(rows, axis=0).tobytes()


def texts(tensor: np.ndarray) -> list[str]:
    """The first column of a text tensor. Raises UsageError where it is not UTF-8."""
    try:
        return [raw.decode("utf-8") for raw in tensor[:, 0]]
    except UnicodeDecodeError as error:
        raise UsageError(f"text is not UTF-8 ({error.reason} at byte {error.start})") from error


def states(tensor: np.ndarray) -> list[ShopperState]:
    """Shopper states of a STATE tensor."""
    return [codecs.read_state(raw) for raw in tensor[:, 0]]


def strings(rows: Sequence[Sequence[bytes]]) -> np.ndarray:
    """Rows of equally many bytes as an object array [B, n]."""
    made = np.empty((len(rows), len(rows[0])), dtype=object)
    for at, row in enumerate(rows):
        made[at] = row
    return made


def column(values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """Values [B] as [B, 1]."""
    return np.asarray(values, dtype=dtype)[:, None]


def _guide(raw: bytes) -> Guide:
    guide = raw.decode("utf-8", "replace") or "guided"
    if guide not in GUIDES:
        raise UsageError(f"GUIDE: {guide!r} is none of {', '.join(GUIDES)}")
    return cast(Guide, guide)
