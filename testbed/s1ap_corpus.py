"""S1AP PDUs made at random from the ASN.1 itself: every message, every element, valid and of every shape.

For differential tests and for the decoding benchmark. The same seed gives the same PDUs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pycrate_asn1dir import S1AP

_PDU: Final = S1AP.S1AP_PDU_Descriptions.S1AP_PDU
_OUTCOMES: Final = {
    "InitiatingMessage": "initiatingMessage",
    "SuccessfulOutcome": "successfulOutcome",
    "UnsuccessfulOutcome": "unsuccessfulOutcome",
}
_UNKNOWN_ELEMENT = 60000
_LONG_LENGTHS: Final = (127, 128, 200, 1000, 5000, 16383, 16384, 16385, 20000, 32768, 65535, 65536, 70000, 140000)
_UNBOUNDED = 65535


@dataclass(frozen=True, slots=True)
class _Message:
    name: str
    outcome: str
    procedure_code: int
    criticality: str
    body: Any


def _messages() -> dict[str, _Message]:
    found = {}
    procedures = S1AP.S1AP_PDU_Descriptions.S1AP_ELEMENTARY_PROCEDURES._val
    for procedure in procedures.root + procedures.ext:
        for key, outcome in _OUTCOMES.items():
            body = procedure.get(key)
            if body is not None and "protocolIEs" in body._cont:
                name = body._typeref.called[1]
                found[name] = _Message(name, outcome, procedure["procedureCode"], procedure["criticality"], body)
    return found


_MESSAGES: Final = _messages()

NAMES: Final = tuple(sorted(_MESSAGES))
"""Every S1AP message that has elements, as the ASN.1 calls it."""


class Made(NamedTuple):
    """A PDU, and the value that it encodes, in pycrate's form."""

    pdu: bytes
    value: tuple[str, Mapping[str, Any]]


def generate(seed: int, count: int, names: Sequence[str] = NAMES, *, long: bool = True) -> Iterator[Made]:
    """Make ``count`` PDUs of the messages ``names``, in turn. ``long``: some octet strings need long lengths."""
    maker = _Maker(random.Random(seed), long)
    for i in range(count):
        yield maker.make(_MESSAGES[names[i % len(names)]])


class _Maker:
    """Makes values in pycrate's forms: sequences are dicts, choices pairs, bit strings (value, length)."""

    def __init__(self, chance: random.Random, long: bool) -> None:
        self._chance = chance
        self._long = long

    def make(self, message: _Message) -> Made:
        body = {
            "procedureCode": message.procedure_code,
            "criticality": message.criticality,
            "value": (message.name, self._sequence(message.body, 0)),
        }
        _PDU.set_val((message.outcome, body))
        return Made(_PDU.to_aper(), (message.outcome, body))

    def _value(self, kind: Any, depth: int) -> Any:
        match kind.TYPE:
            case "SEQUENCE":
                return self._sequence(kind, depth)
            case "SEQUENCE OF":
                return self._sequence_of(kind, depth)
            case "CHOICE":
                name = self._chance.choice([*kind._root, *(kind._ext or ())])
                return name, self._value(kind._cont[name], depth + 1)
            case "INTEGER":
                return self._integer(kind)
            case "ENUMERATED":
                return self._chance.choice([*kind._root, *(kind._ext or ())])
            case "BIT STRING":
                size = self._size(kind, depth, 64)
                return self._chance.getrandbits(size) if size else 0, size
            case "OCTET STRING":
                return self._chance.randbytes(self._size(kind, depth, 120))
            case "BOOLEAN":
                return self._chance.random() < 0.5
            case "NULL":
                return 0
            case _:  # one of the character strings
                return "".join(self._chance.choices("abcXYZ012 ", k=self._size(kind, depth, 40)))

    def _sequence(self, kind: Any, depth: int) -> dict[str, Any]:
        if "id" in kind._cont and kind._cont["id"]._const_tab is not None:  # one element outside of a list
            return self._element(kind, self._chance.choice(kind._cont["id"]._const_tab._val.root), depth)
        made = {}
        for name, part in kind._cont.items():
            optional = part._opt or part._def is not None or name in (kind._ext or ())
            if not optional or self._chance.random() < 0.6 / (depth + 1):
                made[name] = self._value(part, depth + 1)
        if kind._ext is not None and not kind._ext and self._chance.random() < 0.06 and _ends_aligned(kind, made):
            for i in range(self._chance.randrange(1, 4)):  # additions of a later version; pycrate counts them from 1
                made[f"_ext_{i + 1}"] = self._chance.randbytes(self._chance.randrange(1, 200))
        return made

    def _sequence_of(self, kind: Any, depth: int) -> list[Any]:
        part = kind._cont
        bounds = kind._const_sz.root[0]
        low, high = (bounds, bounds) if isinstance(bounds, int) else (bounds.lb, bounds.ub)
        if part.TYPE == "SEQUENCE" and "id" in part._cont:
            rows = part._cont["id"]._const_tab._val.root
            if high == _UNBOUNDED:
                return self._container(part, rows, low, depth)
            return [self._element(part, rows[0], depth) for _ in range(self._few(low, high))]
        return [self._value(part, depth + 1) for _ in range(self._few(low, high))]

    def _container(self, part: Any, rows: Sequence[Mapping[str, Any]], low: int, depth: int) -> list[Any]:
        """Elements or extensions: all that are mandatory, some of the others, now and then one nobody knows."""
        made = []
        for row in rows:
            if row["presence"] == "mandatory" or self._chance.random() < 0.5 / (depth + 1):
                made.append(self._element(part, row, depth))
        if len(made) < low or self._chance.random() < 0.05:
            unknown = self._chance.randbytes(self._chance.randrange(1, 300))
            field = "value" if "value" in part._cont else "extensionValue"
            made.insert(0, {"id": _UNKNOWN_ELEMENT, "criticality": "ignore", field: ("_unk_004", unknown)})
        return made

    def _element(self, part: Any, row: Mapping[str, Any], depth: int) -> dict[str, Any]:
        field, kind = ("value", row["Value"]) if "value" in part._cont else ("extensionValue", row["Extension"])
        name = kind.TYPE if kind._typeref is None else kind._typeref.called[1]
        return {"id": row["id"], "criticality": row["criticality"], field: (name, self._value(kind, depth + 1))}

    def _integer(self, kind: Any) -> int:
        if kind._const_val is None:
            return self._chance.randrange(-(1 << 20), 1 << 20)
        bounds = kind._const_val.root[0]
        low, high = (bounds, bounds) if isinstance(bounds, int) else (bounds.lb, bounds.ub)
        if kind._const_val.ext is not None and self._chance.random() < 0.15:
            return int(high) + self._chance.choice((1, 2, 100, 300))
        width = self._chance.choice((8, 16, 24, 32, 64))
        return int(min(high, low + self._chance.randrange(1 << width)))

    def _size(self, kind: Any, depth: int, usual: int) -> int:
        constraint = kind._const_sz
        if constraint is None:
            if self._long and depth < 8 and self._chance.random() < 0.03:
                return self._chance.choice(_LONG_LENGTHS)
            return self._chance.randrange(1, usual)
        bounds = constraint.root[0]
        low, high = (bounds, bounds) if isinstance(bounds, int) else (bounds.lb, bounds.ub)
        if constraint.ext is not None and high is not None and self._chance.random() < 0.1:
            return int(high) + self._chance.choice((1, 8, 40))
        if high is None:
            high = low + usual
        return int(self._chance.choice((low, high, self._chance.randint(low, high))))

    def _few(self, low: int, high: int) -> int:
        """A number of elements: mostly one or two, now and then as many as there may be, within reason."""
        few = self._chance.choice((1, 1, 1, 2, 3, 8)) if self._chance.random() < 0.98 else 256
        return max(low, min(high, few))


def _ends_aligned(kind: Any, made: dict[str, Any]) -> bool:
    """Whether a sequence ends at an octet; where it does not, pycrate 0.7 pads what follows once too often."""
    last = next(reversed(made), None)
    if last is None:
        return False
    part, value = kind._cont[last], made[last]
    return last == "iE-Extensions" or (part.TYPE == "OCTET STRING" and len(value) > 2)
