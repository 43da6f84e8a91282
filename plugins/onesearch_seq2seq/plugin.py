"""What the seq2seq generator offers to the platform. Imports in either environment."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts.offers import Offer
from onesearch.hookspecs import hookimpl

from onesearch_seq2seq.config import Seq2SeqConfig

_QUICK_STAGE = {"steps": 20, "warmup": 2, "eval_every": 10, "batch_size": 16, "text_batch_size": 8}


@hookimpl
def generator() -> Sequence[Offer]:
    """Offer the encoder-decoder generator with constrained, guided beam search in one graph."""
    return [
        Offer(
            name="seq2seq",
            config=Seq2SeqConfig,
            learner="onesearch_seq2seq.learner:Seq2SeqLearner",
            server="onesearch_seq2seq.server:Seq2SeqServer",
            quick={
                "size": "tiny",
                "alignment": _QUICK_STAGE,
                "cooccurrence": _QUICK_STAGE,
                "personalisation": _QUICK_STAGE,
            },
            summary="encoder-decoder; beams guided by the query's embedding over the live prefix tree",
        )
    ]
