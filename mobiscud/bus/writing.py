"""Dataclasses as JSON text, in the forms of the contract: TEIDs, cells and tracking areas as hex strings, unknown
values as ``null``.

How a class is written is worked out once, from its annotations, and made into a function of one expression, as
``dataclasses`` makes its methods: nothing else writes in plain Python at the speed at which a replay finds events. What
comes again and again (nodes, cells, bearers) is written once and remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii as quoted
from types import NoneType, UnionType
from typing import Any, Final, NewType, Union, get_args, get_origin, get_type_hints

from mobiscud.core.ids import CellId, Gummei, Tac, Teid

Write = Callable[[Any], str]

HEX: Final = (Teid, CellId, Tac)
RENAMED: Final[Mapping[type, Mapping[str, str]]] = {Gummei: {"mme_group_id": "group_id", "mme_code": "code"}}
"""Fields that are called otherwise outside."""

REMEMBERED: Final = 4096
"""Values of each class whose text is remembered."""


@cache
def writer(cls: Any, left_out: frozenset[str] = frozenset(), kept_secret: frozenset[str] = frozenset()) -> Write:
    """A function that writes an instance of a dataclass; fields left out are not there, secret ones are ``null``."""
    hints, renamed = get_type_hints(cls), RENAMED.get(cls, {})
    places: list[str] = []
    values: list[str] = []
    names: dict[str, Any] = {}
    for name in (field.name for field in fields(cls) if field.name not in left_out):
        secret = name in kept_secret
        places.append(f'"{renamed.get(name, name)}":' + ("null" if secret else "%s"))
        if not secret:
            inner, optional = split_optional(hints[name])
            names[f"write_{name}"] = _write_present(inner)
            value = f"write_{name}(value.{name})"
            values.append(f"'null' if value.{name} is None else {value}" if optional else value)
    names["template"] = f"{{{','.join(places)}}}"
    made: Write = eval(f"lambda value: template % ({''.join(f'{value}, ' for value in values)})", names)
    return made


def split_optional(hint: Any) -> tuple[Any, bool]:
    """The type itself, and whether None may stand in its place."""
    if get_origin(hint) in (Union, UnionType):
        present = [a for a in get_args(hint) if a is not NoneType]
        return present[0], len(present) < len(get_args(hint))
    return hint, False


def _write_as(hint: Any) -> Write:
    inner, optional = split_optional(hint)
    write = _write_present(inner)
    return (lambda value: "null" if value is None else write(value)) if optional else write


def _write_present(hint: Any) -> Write:
    inner: Any = hint.__supertype__ if isinstance(hint, NewType) else hint
    if get_origin(inner) is tuple:
        one = _write_as(get_args(inner)[0])
        return lambda value: f"[{','.join(map(one, value))}]" if value else "[]"
    if is_dataclass(hint):
        write: Write = lru_cache(REMEMBERED)(writer(inner))
        return write
    if inner in HEX:
        return '"{}"'.format
    if issubclass(inner, str):
        return quoted
    if inner is bool:
        return lambda value: "true" if value else "false"
    if issubclass(inner, int):
        return int.__repr__
    if inner is float:
        return float.__repr__
    raise TypeError(f"no way to write a {inner}")
