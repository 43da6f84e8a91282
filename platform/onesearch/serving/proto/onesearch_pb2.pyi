from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Guide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GUIDED: _ClassVar[Guide]
    GENERATOR: _ClassVar[Guide]
    PRIOR_ONLY: _ClassVar[Guide]
GUIDED: Guide
GENERATOR: Guide
PRIOR_ONLY: Guide

class Filters(_message.Message):
    __slots__ = ("category", "brands", "min_price", "max_price", "in_stock")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    BRANDS_FIELD_NUMBER: _ClassVar[int]
    MIN_PRICE_FIELD_NUMBER: _ClassVar[int]
    MAX_PRICE_FIELD_NUMBER: _ClassVar[int]
    IN_STOCK_FIELD_NUMBER: _ClassVar[int]
    category: _containers.RepeatedScalarFieldContainer[str]
    brands: _containers.RepeatedScalarFieldContainer[str]
    min_price: float
    max_price: float
    in_stock: bool
    def __init__(self, category: _Optional[_Iterable[str]] = ..., brands: _Optional[_Iterable[str]] = ..., min_price: _Optional[float] = ..., max_price: _Optional[float] = ..., in_stock: _Optional[bool] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("query", "user_id", "k", "offset", "filters", "beams", "explain", "guide", "no_rerank", "request_id", "certify", "page_token", "asked_at_us")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    BEAMS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    GUIDE_FIELD_NUMBER: _ClassVar[int]
    NO_RERANK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFY_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ASKED_AT_US_FIELD_NUMBER: _ClassVar[int]
    query: str
    user_id: str
    k: int
    offset: int
    filters: Filters
    beams: int
    explain: bool
    guide: Guide
    no_rerank: bool
    request_id: str
    certify: int
    page_token: str
    asked_at_us: int
    def __init__(self, query: _Optional[str] = ..., user_id: _Optional[str] = ..., k: _Optional[int] = ..., offset: _Optional[int] = ..., filters: _Optional[_Union[Filters, _Mapping]] = ..., beams: _Optional[int] = ..., explain: _Optional[bool] = ..., guide: _Optional[_Union[Guide, str]] = ..., no_rerank: _Optional[bool] = ..., request_id: _Optional[str] = ..., certify: _Optional[int] = ..., page_token: _Optional[str] = ..., asked_at_us: _Optional[int] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("item_id", "title", "category", "brand", "price", "in_stock", "sid", "release", "generation")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    BRAND_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    IN_STOCK_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    category: _containers.RepeatedScalarFieldContainer[str]
    brand: str
    price: float
    in_stock: bool
    sid: _containers.RepeatedScalarFieldContainer[int]
    release: str
    generation: int
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., category: _Optional[_Iterable[str]] = ..., brand: _Optional[str] = ..., price: _Optional[float] = ..., in_stock: _Optional[bool] = ..., sid: _Optional[_Iterable[int]] = ..., release: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("rank", "item", "score", "log_prob", "parts", "propensity")
    RANK_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LOG_PROB_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    rank: int
    item: Item
    score: float
    log_prob: float
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    propensity: float
    def __init__(self, rank: _Optional[int] = ..., item: _Optional[_Union[Item, _Mapping]] = ..., score: _Optional[float] = ..., log_prob: _Optional[float] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ..., propensity: _Optional[float] = ...) -> None: ...

class Keyword(_message.Message):
    __slots__ = ("text", "attribute")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    text: str
    attribute: str
    def __init__(self, text: _Optional[str] = ..., attribute: _Optional[str] = ...) -> None: ...

class Beam(_message.Message):
    __slots__ = ("sid", "log_prob")
    SID_FIELD_NUMBER: _ClassVar[int]
    LOG_PROB_FIELD_NUMBER: _ClassVar[int]
    sid: _containers.RepeatedScalarFieldContainer[int]
    log_prob: float
    def __init__(self, sid: _Optional[_Iterable[int]] = ..., log_prob: _Optional[float] = ...) -> None: ...

class UserIdToken(_message.Message):
    __slots__ = ("name", "sid")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    name: str
    sid: str
    def __init__(self, name: _Optional[str] = ..., sid: _Optional[str] = ...) -> None: ...

class SeenItem(_message.Message):
    __slots__ = ("query", "item_id", "title", "sid")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    query: str
    item_id: str
    title: str
    sid: str
    def __init__(self, query: _Optional[str] = ..., item_id: _Optional[str] = ..., title: _Optional[str] = ..., sid: _Optional[str] = ...) -> None: ...

class Interest(_message.Message):
    __slots__ = ("name", "weight")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    weight: float
    def __init__(self, name: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class Shopper(_message.Message):
    __slots__ = ("user_id_tokens", "recent", "stand_ins", "interests")
    USER_ID_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RECENT_FIELD_NUMBER: _ClassVar[int]
    STAND_INS_FIELD_NUMBER: _ClassVar[int]
    INTERESTS_FIELD_NUMBER: _ClassVar[int]
    user_id_tokens: _containers.RepeatedCompositeFieldContainer[UserIdToken]
    recent: _containers.RepeatedCompositeFieldContainer[SeenItem]
    stand_ins: _containers.RepeatedCompositeFieldContainer[SeenItem]
    interests: _containers.RepeatedCompositeFieldContainer[Interest]
    def __init__(self, user_id_tokens: _Optional[_Iterable[_Union[UserIdToken, _Mapping]]] = ..., recent: _Optional[_Iterable[_Union[SeenItem, _Mapping]]] = ..., stand_ins: _Optional[_Iterable[_Union[SeenItem, _Mapping]]] = ..., interests: _Optional[_Iterable[_Union[Interest, _Mapping]]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("keywords", "query_sid", "meanings", "beams", "found", "branches", "exact", "dropped", "missing", "shopper", "width")
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    QUERY_SID_FIELD_NUMBER: _ClassVar[int]
    MEANINGS_FIELD_NUMBER: _ClassVar[int]
    BEAMS_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    SHOPPER_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    keywords: _containers.RepeatedCompositeFieldContainer[Keyword]
    query_sid: _containers.RepeatedScalarFieldContainer[int]
    meanings: _containers.RepeatedScalarFieldContainer[str]
    beams: _containers.RepeatedCompositeFieldContainer[Beam]
    found: int
    branches: _containers.RepeatedScalarFieldContainer[int]
    exact: int
    dropped: float
    missing: int
    shopper: Shopper
    width: int
    def __init__(self, keywords: _Optional[_Iterable[_Union[Keyword, _Mapping]]] = ..., query_sid: _Optional[_Iterable[int]] = ..., meanings: _Optional[_Iterable[str]] = ..., beams: _Optional[_Iterable[_Union[Beam, _Mapping]]] = ..., found: _Optional[int] = ..., branches: _Optional[_Iterable[int]] = ..., exact: _Optional[int] = ..., dropped: _Optional[float] = ..., missing: _Optional[int] = ..., shopper: _Optional[_Union[Shopper, _Mapping]] = ..., width: _Optional[int] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("request_id", "hits", "release", "generation", "degraded", "explanation", "took_ms", "next_page", "moved")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    MOVED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    release: str
    generation: int
    degraded: bool
    explanation: Explanation
    took_ms: float
    next_page: str
    moved: bool
    def __init__(self, request_id: _Optional[str] = ..., hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., release: _Optional[str] = ..., generation: _Optional[int] = ..., degraded: _Optional[bool] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., took_ms: _Optional[float] = ..., next_page: _Optional[str] = ..., moved: _Optional[bool] = ...) -> None: ...

class BatchSearchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[SearchRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[SearchRequest, _Mapping]]] = ...) -> None: ...

class BatchSearchResponse(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedCompositeFieldContainer[SearchResponse]
    def __init__(self, responses: _Optional[_Iterable[_Union[SearchResponse, _Mapping]]] = ...) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("item_id",)
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    def __init__(self, item_id: _Optional[str] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ("texts", "vectors")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    vectors: bool
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., vectors: _Optional[bool] = ...) -> None: ...

class Encoding(_message.Message):
    __slots__ = ("text", "keywords", "sid", "meanings", "vector")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    MEANINGS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    text: str
    keywords: _containers.RepeatedCompositeFieldContainer[Keyword]
    sid: _containers.RepeatedScalarFieldContainer[int]
    meanings: _containers.RepeatedScalarFieldContainer[str]
    vector: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, text: _Optional[str] = ..., keywords: _Optional[_Iterable[_Union[Keyword, _Mapping]]] = ..., sid: _Optional[_Iterable[int]] = ..., meanings: _Optional[_Iterable[str]] = ..., vector: _Optional[_Iterable[float]] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("encodings", "release")
    ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    encodings: _containers.RepeatedCompositeFieldContainer[Encoding]
    release: str
    def __init__(self, encodings: _Optional[_Iterable[_Union[Encoding, _Mapping]]] = ..., release: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("release", "generation", "items", "models_ready", "in_flight", "answered", "degraded", "refused", "uptime_s", "default_beams", "max_k", "states_asked", "states_known", "states_failed", "states_took_s", "challenger", "challenger_share", "problem")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODELS_READY_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_BEAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_K_FIELD_NUMBER: _ClassVar[int]
    STATES_ASKED_FIELD_NUMBER: _ClassVar[int]
    STATES_KNOWN_FIELD_NUMBER: _ClassVar[int]
    STATES_FAILED_FIELD_NUMBER: _ClassVar[int]
    STATES_TOOK_S_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_FIELD_NUMBER: _ClassVar[int]
    CHALLENGER_SHARE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    release: str
    generation: int
    items: int
    models_ready: bool
    in_flight: int
    answered: int
    degraded: int
    refused: int
    uptime_s: float
    default_beams: int
    max_k: int
    states_asked: int
    states_known: int
    states_failed: int
    states_took_s: float
    challenger: str
    challenger_share: float
    problem: str
    def __init__(self, release: _Optional[str] = ..., generation: _Optional[int] = ..., items: _Optional[int] = ..., models_ready: _Optional[bool] = ..., in_flight: _Optional[int] = ..., answered: _Optional[int] = ..., degraded: _Optional[int] = ..., refused: _Optional[int] = ..., uptime_s: _Optional[float] = ..., default_beams: _Optional[int] = ..., max_k: _Optional[int] = ..., states_asked: _Optional[int] = ..., states_known: _Optional[int] = ..., states_failed: _Optional[int] = ..., states_took_s: _Optional[float] = ..., challenger: _Optional[str] = ..., challenger_share: _Optional[float] = ..., problem: _Optional[str] = ...) -> None: ...
