"""Settings of the generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ON_DEVICES = ("tensorrt", "torch")
"""Engines that build graphs of fixed sizes from a network's weights."""


class Section(BaseModel):
    """A table of settings: unknown keys are errors, the text under a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class StageConfig(Section):
    """How one stage of supervised training runs."""

    steps: int = Field(default=4_000, ge=0)
    """Steps of the optimiser at most; the learning rate falls to zero over them."""
    max_minutes: float = Field(default=0.0, ge=0)
    """Wall-clock limit of training in this stage, kept across resumes; 0: none. The learning rate reaches
    zero at the limit, so a stage cut by time is a finished one (but two such runs are not bit-identical)."""
    batch_size: int = Field(default=256, ge=1)
    """Examples in a batch of a SID task."""
    text_batch_size: int = Field(default=96, ge=1)
    """Examples in a batch of a text task, whose loss runs over the whole text vocabulary."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest learning rate of AdamW (β 0.9, 0.98)."""
    warmup: int = Field(default=200, ge=0)
    """Steps over which the learning rate rises."""
    eval_every: int = Field(default=500, ge=1)
    """Steps between two looks at the held-out examples."""
    patience: int = Field(default=4, ge=1)
    """Stop after so many looks without a better held-out likelihood; the best weights are kept."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between two checkpoints."""


class PreferenceConfig(Section):
    """How one phase of preference learning runs."""

    loss: Literal["s_dpo", "printed"] = "s_dpo"
    """``s_dpo`` is what is meant to be trained with; ``printed`` is the paper's formula as printed, which
    does not learn what it should (docs/pars.md) and is there to be compared."""
    beta: float = Field(default=0.3, gt=0)
    """β of the implicit reward β·log(π/π_ref): the larger, the closer to the reference the network stays."""
    margin: float = Field(default=0.1, ge=0)
    """δ: by how much a positive's implicit reward is to be above a negative's."""
    keep: float = Field(default=0.05, ge=0)
    """α, the weight of the positive's own log-likelihood: keeps it from falling along with all others."""
    weight_floor: float = Field(default=0.25, gt=0)
    """ε of the pairs' weights 1 + clip(r_w − r_l, ε)^−1.5."""
    weight_cap: float = Field(default=4.0, ge=1)
    """No pair weighs more."""
    steps: int = Field(default=1_000, ge=0)
    """Steps of the optimiser at most; the learning rate falls to zero over them."""
    max_minutes: float = Field(default=25.0, ge=0)
    """Wall-clock limit of the phase's steps, kept across resumes; 0: none. It is there for slow machines:
    what a phase that it cut has learnt depends on how fast the machine was."""
    batch_size: int = Field(default=32, ge=1)
    """Ranked rows in a batch."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Highest learning rate of Adam (β 0.9, 0.98)."""
    warmup: int = Field(default=50, ge=0)
    """Steps over which the learning rate rises."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two looks at the held-out lists and examples."""
    patience: int = Field(default=3, ge=1)
    """Stop after so many looks without a better loss of the held-out lists; the best weights are kept."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between two checkpoints."""
    nll_slack: float = Field(default=0.1, ge=0)
    """Nats a path by which the held-out likelihood of supervised training may fall."""


class GpuConfig(Section):
    """How searches run on a GPU: graphs of fixed sizes, built when a server starts."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    """What the factors of matrix products are rounded to; sums and whatever scores and ranks stay float32."""
    beams: tuple[Annotated[int, Field(ge=1, le=3840)], ...] = (128, 512)
    """Widths that graphs are built for, each with weights of its own on the device. A search takes the next
    wider one, and one that is wider than all of them runs on the processor."""
    batch: int = Field(default=8, ge=1, le=64)
    """Queries that are searched at once; a single one has a graph of its own."""
    prefixes: int = Field(default=2, ge=0)
    """Vectors before the prompt that there is room for: as many as the user encoder makes."""
    candidates: int = Field(default=65_536, ge=1_024)
    """Children that a step of a search looks at at most (or 32 a beam, where that is more); what is beyond is
    dropped, least likely prefixes first, and the certificate counts it."""


class Seq2SeqConfig(Section):
    """Settings of the encoder-decoder generator."""

    size: Literal["tiny", "small", "base"] = "small"
    """``small``: width 256, 3 + 3 layers, the default on CPUs. ``base``: BART-base's dimensions, width 768,
    6 + 6 layers. ``tiny``: width 64, 1 + 1 layers, for tests and demos."""
    start_from: str = ""
    """Folder of published BART weights (model.safetensors, vocab.json) of the size's dimensions to start
    from; the norms then stand behind the sublayers, as there."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of every sublayer in training."""
    prompt_limit: int = Field(default=128, ge=8)
    """Longest prompt in tokens; longer ones are cut on the right."""
    text_limit: int = Field(default=48, ge=2, le=512)
    """Longest target text in tokens."""
    text_negatives: int = Field(default=1_024, ge=0)
    """Random tokens that a text task's softmax runs over beside the batch's own; 0: the whole vocabulary."""
    head_rank: tuple[int, ...] = (0, 0, 64, 32)
    """Rank of each level's head, 0 is full; the last number holds for all deeper levels. Deep levels have
    noisy codes, and few free parameters keep their heads from learning training items by heart."""
    steer_rank: int = Field(default=64, ge=0)
    """Rank of the steering of the query vector: a low-rank product of the decoder's state with the children's
    vectors, which also knows codes and items that were never trained on. 0 leaves it out."""
    prior_weight: float = Field(default=20.0, ge=0)
    """Where the weight γ of the query embedding's prior starts, an inverse temperature; it is learnt."""
    mass_weight: float = 0.5
    """Where the weight η of the log-popularity below a child starts; it is learnt."""
    served_task: str = "query text → item SID"
    """The SID task that is served: its held-out examples stop the training and fit the weights of the levels.
    If a stage has no such task, its first SID task with held-out examples stands in."""
    held_out_limit: int = Field(default=2_000, ge=2)
    """Held-out examples looked at, chosen once by the seed."""
    seed: int = Field(default=0, ge=0)
    """Seed of initial weights, batch order and dropout."""
    threads: int = Field(default=0, ge=0)
    """Threads of training; 0: what torch takes by itself."""
    mixed_precision: bool = True
    """Matrix products in bfloat16 where the processor or GPU computes them; weights stay float32."""
    alignment: StageConfig = StageConfig(steps=1_500, max_minutes=20)
    """Stage 1: text and categories ↔ SIDs. About 10 minutes of ``small`` on two cores; the limits are for
    slower ones, so that a training of all stages stays below 90 minutes."""
    cooccurrence: StageConfig = StageConfig(steps=2_500, max_minutes=25)
    """Stage 2: queries ↔ items. About 20 minutes of ``small`` on two cores."""
    personalisation: StageConfig = StageConfig(steps=2_000, max_minutes=25)
    """Stage 3: with the shopper's behaviour."""
    refresh: StageConfig = StageConfig(
        steps=200, learning_rate=2e-4, warmup=20, eval_every=50, patience=2, checkpoint_every=50
    )
    """Stage 3 continued from a release, on the newest log: about 5 minutes of ``small`` on two cores."""
    phase_1: PreferenceConfig = PreferenceConfig()
    """Preference learning, reward-guided: the lists are the network's own, and its positives rise by
    themselves."""
    phase_2: PreferenceConfig = PreferenceConfig(keep=0.5)
    """Preference learning from interactions alone: their positives are far from what the network says, and
    fall unless they are kept."""
    precision: Literal["int8", "fp32"] = "int8"
    """Arithmetic of the exported graph's matrix products: int8 quantises the weights by channel and the
    activations by row, as they come."""
    engine: Literal["auto", "native", "onnx", "tensorrt", "torch"] = "auto"
    """What searches. On a CPU the native library, or the graph under ONNX Runtime: ``auto`` takes the library
    where it was built (``make native``) and runs, and the graph elsewhere. On a GPU ``tensorrt``, or
    ``torch`` to compare it with; where there is none, the first does what ``auto`` does, and the second runs
    on the CPU. A release carries the weights that those two need if it was made with one of them chosen."""
    gpu: GpuConfig = GpuConfig()
    """Searches on a GPU."""

    @property
    def dimensions(self) -> Dimensions:
        """Width, layers and heads of the size."""
        return SIZES[self.size]

    def rank_of(self, level: int) -> int:
        """Rank of a level's head, 0: full."""
        return self.head_rank[min(level, len(self.head_rank) - 1)] if self.head_rank else 0


@dataclass(frozen=True)
class Dimensions:
    """Width d, encoder and decoder layers (each), width of the feed-forward, heads, activation."""

    width: int
    layers: int
    hidden: int
    heads: int
    activation: Literal["relu", "gelu"]


SIZES: dict[str, Dimensions] = {
    "tiny": Dimensions(64, 1, 128, 2, "relu"),
    "small": Dimensions(256, 3, 1024, 4, "relu"),
    "base": Dimensions(768, 6, 3072, 12, "gelu"),
}
