from onesearch.events.proto import events_pb2 as _events_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Fate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FATE_UNKNOWN: _ClassVar[Fate]
    ACKNOWLEDGED: _ClassVar[Fate]
    SPOOLED: _ClassVar[Fate]
FATE_UNKNOWN: Fate
ACKNOWLEDGED: Fate
SPOOLED: Fate

class ReportRequest(_message.Message):
    __slots__ = ("interactions",)
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    interactions: _containers.RepeatedCompositeFieldContainer[_events_pb2.Interaction]
    def __init__(self, interactions: _Optional[_Iterable[_Union[_events_pb2.Interaction, _Mapping]]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("fate", "event_ids")
    FATE_FIELD_NUMBER: _ClassVar[int]
    EVENT_IDS_FIELD_NUMBER: _ClassVar[int]
    fate: Fate
    event_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, fate: _Optional[_Union[Fate, str]] = ..., event_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class TallyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TallyResponse(_message.Message):
    __slots__ = ("queued", "acknowledged", "spooled", "dropped", "spool_bytes", "down")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    SPOOLED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    SPOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOWN_FIELD_NUMBER: _ClassVar[int]
    queued: int
    acknowledged: int
    spooled: int
    dropped: int
    spool_bytes: int
    down: bool
    def __init__(self, queued: _Optional[int] = ..., acknowledged: _Optional[int] = ..., spooled: _Optional[int] = ..., dropped: _Optional[int] = ..., spool_bytes: _Optional[int] = ..., down: _Optional[bool] = ...) -> None: ...
