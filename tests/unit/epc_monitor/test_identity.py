"""UE keys."""

from __future__ import annotations

import re

import pytest

from epc_monitor.identity import UeKeys


def test_form_and_stability() -> None:
    keys = UeKeys(bytes(32))
    assert keys.of_imsi("999700000000001") == "ue-" + "7b80b7b4a6bd2a2d"
    assert re.fullmatch(r"ue-[0-9a-f]{16}", keys.of_place(b"somewhere"))
    assert keys.of_place(b"999700000000001") != keys.of_imsi("999700000000001")


def test_another_secret_gives_other_keys() -> None:
    assert UeKeys(bytes(32)).of_imsi("999700000000001") != UeKeys(bytes(31) + b"\1").of_imsi("999700000000001")


def test_a_short_secret_is_none() -> None:
    with pytest.raises(ValueError, match="16 octets"):
        UeKeys(b"short")
