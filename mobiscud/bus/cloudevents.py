"""Events as CloudEvents 1.0 in JSON, and back.

The ``data`` of an event is its dataclass, field by field, in the forms of the contract. How a class is written
(``bus.writing``) and read is worked out once a class, from its annotations, so that a new event needs no line here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final, NewType, get_args, get_origin, get_type_hints

from mobiscud.bus.writing import HEX, RENAMED, Write, split_optional, writer
from mobiscud.core import events
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import Event
from mobiscud.core.times import nanoseconds as nanoseconds
from mobiscud.core.times import rfc3339 as rfc3339
from mobiscud.core.ue import EnbState, UeState

CONTENT_TYPE: Final = "application/cloudevents+json"
TYPE_PREFIX: Final = "org.mobiscud."
SCHEMA_PREFIX: Final = "urn:mobiscud:schema:v1:"

_ENVELOPE: Final = frozenset({"at", "origin"})
_SECRET: Final = frozenset({"imsi"})

Json = dict[str, Any]
Convert = Callable[[Any], Any]


EVENT_TYPES: Final[Mapping[str, type[Event]]] = {
    cls.TYPE: cls
    for cls in vars(events).values()
    if isinstance(cls, type) and issubclass(cls, Event) and "TYPE" in vars(cls)
}
"""Every event class by its type, without the ``org.mobiscud.`` prefix."""


class Envelopes:
    """Wraps the events of one source into CloudEvents.

    ``sequence`` is the time of the event in nanoseconds, or one more than the last where that would not be more. So it
    counts up for each subject, goes on counting up when the program is started again, needs no memory of each UE, and
    of several monitors on one wire it gives the order on that wire.
    """

    def __init__(self, source: str, *, show_imsi: bool = False) -> None:
        """``source`` is ``/mobiscud/SITE/monitor`` or ``.../controller``."""
        self._source = source
        self._secret = frozenset() if show_imsi else _SECRET
        self._sequence = 0
        self._forms: dict[type[Event], tuple[bytes, str, Write]] = {}

    def text(self, event: Event) -> str:
        """The event as a CloudEvent in JSON: compact, ASCII."""
        cls: Any = type(event)
        form = self._forms.get(cls)
        if form is None:
            form = self._forms[cls] = self._form(cls)
        kind, template, write = form
        self._sequence = max(event.at, self._sequence + 1)
        subject = getattr(event, "ue", None)
        return template % (
            hashlib.sha256(kind + event.origin).hexdigest()[:32],
            rfc3339(event.at),
            self._sequence,
            write(event),
            "" if subject is None else f',"subject":{quoted(subject)}',
        )

    def wrap(self, event: Event) -> Json:
        """The event as a CloudEvent: a dictionary."""
        envelope: Json = json.loads(self.text(event))
        return envelope

    def _form(self, cls: Any) -> tuple[bytes, str, Write]:
        """How events of a class are written: what begins their ids, what all of them have, what writes their data."""
        template = (
            '{"specversion":"1.0","id":"%s","source":'
            + quoted(self._source).replace("%", "%%")
            + f',"type":"{TYPE_PREFIX}{cls.TYPE}","time":"%s","datacontenttype":"application/json"'
            + f',"dataschema":"{SCHEMA_PREFIX}{cls.TYPE}","sequence":"%020d","data":%s%s}}'
        )
        return cls.TYPE.encode() + b"\0", template, writer(cls, _ENVELOPE, self._secret)


def state_writer(*, show_imsi: bool) -> Write:
    """What writes the state of a UE as a JSON object."""
    cls: Any = UeState
    return writer(cls, frozenset(), frozenset() if show_imsi else _SECRET)


def write_enb_state(state: EnbState) -> str:
    """The state of an S1 association as a JSON object."""
    cls: Any = EnbState
    return writer(cls)(state)


def encode(envelope: Json) -> bytes:
    """One CloudEvent in structured mode, compact UTF-8."""
    return json.dumps(envelope, separators=(",", ":")).encode()


def decode(payload: bytes | str) -> Json:
    """Read one CloudEvent in structured mode.

    :raises DecodeError: no JSON object, or without the attributes that CloudEvents 1.0 demands
    """
    try:
        envelope = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise DecodeError("not JSON") from error
    if not isinstance(envelope, dict) or not all(
        isinstance(envelope.get(name), str) for name in ("specversion", "id", "source", "type")
    ):
        raise DecodeError("not a CloudEvent")
    return envelope


def unwrap(envelope: Json) -> Event | None:
    """The event inside a CloudEvent; None for a type that this version does not know.

    :raises DecodeError: ``data`` or ``time`` is not what the type says
    """
    cls = EVENT_TYPES.get(str(envelope.get("type")).removeprefix(TYPE_PREFIX))
    if cls is None:
        return None
    hashable: Any = cls
    read = reader(hashable)
    try:
        values = read(envelope["data"])
        at = nanoseconds(envelope["time"])
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"{cls.TYPE}: {error}") from error
    return cls(at=at, origin=str(envelope["id"]).encode(), **values)


# How values are read ---------------------------------------------------------------------------------------------


@cache
def reader(cls: Any) -> Convert:
    """A function that reads a dictionary into keyword arguments (an event) or an instance (all else).

    What is not there at all, since who wrote it is of an older version, has its default value.
    """
    hints = get_type_hints(cls)
    renamed = RENAMED.get(cls, {})
    is_event = issubclass(cls, Event)
    parts = [
        (f.name, renamed.get(f.name, f.name), _read_as(hints[f.name]), f.default is MISSING)
        for f in fields(cls)
        if not (is_event and f.name in _ENVELOPE)
    ]

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"{cls.__name__} is an object, not {type(value).__name__}")
        found = {name: convert(value.get(shown)) for name, shown, convert, needed in parts if needed or shown in value}
        return found if is_event else cls(**found)

    return read


def _read_as(hint: Any) -> Convert:
    inner, optional = split_optional(hint)
    convert = _read_present(inner)

    def read(value: Any) -> Any:
        if value is None:
            if not optional:
                raise ValueError("a value is missing")
            return None
        return convert(value)

    return read


def _read_present(inner: Any) -> Convert:
    if isinstance(inner, NewType):
        inner = inner.__supertype__
    if get_origin(inner) is tuple:
        one = _read_as(get_args(inner)[0])
        return lambda value: tuple(one(item) for item in _checked(list, value))
    if is_dataclass(inner) and isinstance(inner, type):
        return reader(inner)
    if inner in HEX:
        return lambda value: inner(int(_checked(str, value), 16))
    if inner is float:
        return lambda value: float(_checked((int, float), value))
    if issubclass(inner, int):
        return lambda value: inner(_checked(int, value))
    if issubclass(inner, str | Enum):
        return lambda value: inner(_checked(str, value))
    raise TypeError(f"no way to read a {inner}")


def _checked(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is of the wrong kind")
    return value
