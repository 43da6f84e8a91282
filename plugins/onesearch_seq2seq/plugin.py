"""What the seq2seq generator offers to the platform. Imports in either environment."""

from __future__ import annotations

from collections.abc import Sequence

from onesearch.contracts.offers import Offer
from onesearch.hookspecs import hookimpl

from onesearch_seq2seq.config import Seq2SeqConfig

_QUICK_PHASE = {"steps": 8, "warmup": 2, "eval_every": 4, "batch_size": 8}
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
                "refresh": _QUICK_STAGE,
                "phase_1": _QUICK_PHASE,
                "phase_2": _QUICK_PHASE,
            },
            summary="encoder-decoder; beams guided by the query's embedding over the live prefix tree",
        )
    ]
