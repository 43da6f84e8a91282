"""All steps of a search in one process: what the ensemble does, without Triton between the steps.

On few cores the way from process to process costs more than the cheap steps themselves: each tensor is copied
into shared memory and out of it, and each step waits until the scheduler wakes another process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from onesearch.catalogue.generations import Generations
from onesearch.compiling.runtime import Runtime
from onesearch.errors import UsageError
from onesearch.releases.release import Release
from onesearch.serving.models import (
    GeneratorModel,
    Model,
    ResolverModel,
    RewardModel,
    Tensors,
    TokenizerModel,
    UserEncoderModel,
    strings,
)
from onesearch.serving.packed import PACKED, REQUEST, pack_answer, unpack_request


class SearchModel(Model):
    """Text in, items out: the models of the ensemble one after another, with the tensors of the ensemble.

    Requests that meet are searched together step by step. ``SPENT`` tells how long each step took. The
    gateway asks with the one tensor ``REQUEST`` and reads the one tensor ``PACKED``: see
    :mod:`onesearch.serving.packed`.
    """

    reads = (
        "QUERY", "STATE", "FILTERS", "BEAMS", "CERTIFY", "GUIDE", "RERANK", "K", "OFFSET", "SHOWN",
        "CATALOGUE", "EXPLAIN",
    )  # fmt: skip

    def open(self, release: Release, runtime: Runtime, generations: Generations | None = None) -> None:
        """Open all components; they share the release's index."""
        steps: list[tuple[Model, Runtime]] = [
            (TokenizerModel(), Runtime(threads=1)),
            (UserEncoderModel(), Runtime(threads=1)),
            (GeneratorModel(), runtime),
            (RewardModel(), Runtime(threads=1)),
            (ResolverModel(), Runtime(threads=1)),
        ]
        for step, own in steps:
            step.open(release, own, generations)
        self._steps = [step for step, _ in steps]

    def run(self, batch: Tensors) -> Tensors:
        """One request, or several of the same kind."""
        [answer] = self.answers([batch])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _read(self, request: Any) -> Tensors | Exception:
        tensor = self._backend.get_input_tensor_by_name(request, REQUEST)
        if tensor is None:
            return super()._read(request)
        try:
            return unpack_request(tensor.as_numpy()[0, 0])
        except UsageError as error:
            return error

    def _response(self, answer: Tensors | Exception, wanted: Sequence[str]) -> Any:
        if PACKED in wanted and not isinstance(answer, Exception):
            answer = answer | {PACKED: strings([[pack_answer(answer)]])}
        return super()._response(answer, wanted)

    def answers(self, batches: Sequence[Tensors]) -> list[Tensors | Exception]:
        """Every step with all requests that no earlier one has refused."""
        known: list[Tensors | Exception] = [dict(batch) for batch in batches]
        spent = []
        for step in self._steps:
            began = time.perf_counter()
            alive = [(at, one) for at, one in enumerate(known) if not isinstance(one, Exception)]
            answers = step.answers([{name: one[name] for name in step.reads} for _, one in alive])
            for (at, one), answer in zip(alive, answers, strict=True):
                known[at] = answer if isinstance(answer, Exception) else one | answer
            spent.append(1000 * (time.perf_counter() - began))
        return [
            one
            if isinstance(one, Exception)
            else one | {"SPENT": np.tile(np.array(spent, np.float32), (len(one["QUERY"]), 1))}
            for one in known
        ]
