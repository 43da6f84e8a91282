"""What user encoders promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from onesearch.contracts.conformance._common import TEXTS, Answers, ComponentSuite, shaped
from onesearch.contracts.conformance._world import ODD_TEXTS, embed, quantise
from onesearch.contracts.user_encoder import Prompt, ShopperState, UserEncoderLearner, UserEncoderServer
from onesearch.progress import SilentProgress
from onesearch.shoppers.state import NO_ITEM, RING_SIZE, Recent


class UserEncoderSuite(ComponentSuite):
    """Prompts in the vocabulary's id space, padded on the right, for any shopper."""

    def fit(self, learner: UserEncoderLearner, work: Path) -> Any:
        """Fit on the world's store."""
        return learner.fit(self.world.store, work, SilentProgress())

    def answers(self, server: UserEncoderServer, texts: Sequence[str]) -> Answers:
        """The prompt's three arrays."""
        prompt = self._prompt(server, self.world.states(len(texts)), texts)
        return {"ids": prompt.ids, "mask": prompt.mask, "prefix": prompt.prefix}

    def _prompt(
        self, server: UserEncoderServer, states: Sequence[ShopperState], texts: Sequence[str]
    ) -> Prompt:
        return server.features(states, texts, quantise(embed(texts)))

    def check_prompts(self) -> None:
        """``ids`` i32[B, T] of the vocabulary, 0 without ``mask`` bool[B, T]; ``prefix`` f32[B, P, d]."""
        server = cast(UserEncoderServer, self.subject.server)
        for texts in (TEXTS, ODD_TEXTS, ()):
            prompt = self._prompt(server, self.world.states(len(texts)), texts)
            shaped("ids", prompt.ids, (len(texts), None), np.int32)
            shaped("mask", prompt.mask, prompt.ids.shape, np.bool_)
            shaped("prefix", prompt.prefix, (len(texts), None, None), np.float32)
            inside = (prompt.ids >= 0) & (prompt.ids < self.world.vocabulary.size)
            assert inside.all(), "an id is not of the vocabulary"
            assert (prompt.ids[~prompt.mask] == 0).all(), "padding is not 0"
            assert (prompt.mask[:, 1:] <= prompt.mask[:, :-1]).all(), "padding is not on the right"
            assert np.isfinite(prompt.prefix).all(), "a prefix vector is not finite"

    def check_batch_does_not_matter(self) -> None:
        """A request's prompt does not depend on the requests beside it, padding aside."""
        server = cast(UserEncoderServer, self.subject.server)
        states = self.world.states(len(TEXTS))
        whole = self._prompt(server, states, TEXTS)
        for row, (state, text) in enumerate(zip(states, TEXTS, strict=True)):
            alone = self._prompt(server, [state], [text])
            tokens = whole.ids[row][whole.mask[row]], alone.ids[0][alone.mask[0]]
            assert np.array_equal(*tokens), f"the prompt of {text!r} changes with the batch"
            assert np.allclose(whole.prefix[row], alone.prefix[0], atol=1e-4), (
                "prefix vectors change with the batch"
            )

    def check_odd_shoppers(self) -> None:
        """Shoppers without history, with a very long one, or with withdrawn items get prompts too."""
        count = len(self.world.titles)
        many = self.world.ring((list(range(count)) * (1 + RING_SIZE // count))[:RING_SIZE])
        gone = self.world.ring([count + 5, count + 6])
        queries = tuple(Recent(query, NO_ITEM, 1_767_222_000) for query in ("", "x" * 5000))
        odd = [
            ShopperState(),
            ShopperState("nobody"),
            ShopperState("\x00"),
            ShopperState("u", clicks=many, orders=many),
            ShopperState("u", clicks=gone, recent=(Recent("lamp", int(gone.items[0]), 1_767_222_000),)),
            ShopperState("u", recent=queries),
        ]
        prompt = self._prompt(cast(UserEncoderServer, self.subject.server), odd, ["lamp"] * len(odd))
        shaped("ids", prompt.ids, (len(odd), None), np.int32)
        assert prompt.mask.any(axis=1).all(), "a prompt is empty"
