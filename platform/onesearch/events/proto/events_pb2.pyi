from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scene(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCENE_UNKNOWN: _ClassVar[Scene]
    SEARCH: _ClassVar[Scene]
    RECOMMEND: _ClassVar[Scene]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNKNOWN: _ClassVar[Action]
    IMPRESSION: _ClassVar[Action]
    CLICK: _ClassVar[Action]
    ORDER: _ClassVar[Action]
SCENE_UNKNOWN: Scene
SEARCH: Scene
RECOMMEND: Scene
ACTION_UNKNOWN: Action
IMPRESSION: Action
CLICK: Action
ORDER: Action

class Interaction(_message.Message):
    __slots__ = ("schema", "event_id", "ts_us", "user_id", "session_id", "request_id", "scene", "query", "item_id", "action", "position", "score", "propensity", "release")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    TS_US_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    schema: int
    event_id: str
    ts_us: int
    user_id: str
    session_id: str
    request_id: str
    scene: Scene
    query: str
    item_id: str
    action: Action
    position: int
    score: float
    propensity: float
    release: str
    def __init__(self, schema: _Optional[int] = ..., event_id: _Optional[str] = ..., ts_us: _Optional[int] = ..., user_id: _Optional[str] = ..., session_id: _Optional[str] = ..., request_id: _Optional[str] = ..., scene: _Optional[_Union[Scene, str]] = ..., query: _Optional[str] = ..., item_id: _Optional[str] = ..., action: _Optional[_Union[Action, str]] = ..., position: _Optional[int] = ..., score: _Optional[float] = ..., propensity: _Optional[float] = ..., release: _Optional[str] = ...) -> None: ...

class Interactions(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Interaction]
    def __init__(self, rows: _Optional[_Iterable[_Union[Interaction, _Mapping]]] = ...) -> None: ...

class Attribute(_message.Message):
    __slots__ = ("type", "value")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    type: str
    value: str
    def __init__(self, type: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Attributes(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Attribute]
    def __init__(self, rows: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("item_id", "title", "category", "attributes", "brand", "price", "in_stock", "popularity", "detail_text", "ocr_text", "image_uri")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    BRAND_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    IN_STOCK_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_FIELD_NUMBER: _ClassVar[int]
    DETAIL_TEXT_FIELD_NUMBER: _ClassVar[int]
    OCR_TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_URI_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    category: Names
    attributes: Attributes
    brand: str
    price: float
    in_stock: bool
    popularity: float
    detail_text: str
    ocr_text: str
    image_uri: str
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., category: _Optional[_Union[Names, _Mapping]] = ..., attributes: _Optional[_Union[Attributes, _Mapping]] = ..., brand: _Optional[str] = ..., price: _Optional[float] = ..., in_stock: _Optional[bool] = ..., popularity: _Optional[float] = ..., detail_text: _Optional[str] = ..., ocr_text: _Optional[str] = ..., image_uri: _Optional[str] = ...) -> None: ...

class CatalogueChange(_message.Message):
    __slots__ = ("schema", "event_id", "ts_us", "put", "patch", "withdraw")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    TS_US_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    WITHDRAW_FIELD_NUMBER: _ClassVar[int]
    schema: int
    event_id: str
    ts_us: int
    put: Item
    patch: Item
    withdraw: str
    def __init__(self, schema: _Optional[int] = ..., event_id: _Optional[str] = ..., ts_us: _Optional[int] = ..., put: _Optional[_Union[Item, _Mapping]] = ..., patch: _Optional[_Union[Item, _Mapping]] = ..., withdraw: _Optional[str] = ...) -> None: ...
