"""The configuration's limits reach the monitor, each of them."""

from __future__ import annotations

from dataclasses import fields

from epc_monitor.identity import UeKeys
from epc_monitor.limits import Limits
from mobiscud.app import build
from mobiscud.core.config import parse

KEYS = UeKeys(bytes(32))


def test_without_a_word_the_limits_are_the_monitors_own() -> None:
    assert build.monitor(parse(""), KEYS).limits == Limits()


def test_each_limit_can_be_set() -> None:
    names = [field.name.replace("octets", "mib") for field in fields(Limits)]
    wanted = {name: 100 + number for number, name in enumerate(names)}
    text = "monitor:\n  limits: {" + ", ".join(f"{name}: {value}" for name, value in wanted.items()) + "}"
    limits = build.monitor(parse(text), KEYS).limits
    assert limits.waiting_octets == wanted["waiting_mib"] << 20
    assert {field.name: getattr(limits, field.name) for field in fields(Limits) if field.name != "waiting_octets"} == {
        name: value for name, value in wanted.items() if name != "waiting_mib"
    }
