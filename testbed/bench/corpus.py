"""PDUs in a file, each behind its length in four octets: what the decoding contestants share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def write(path: Path, pdus: Iterable[bytes]) -> None:
    path.write_bytes(b"".join(len(pdu).to_bytes(4, "big") + pdu for pdu in pdus))


def read(path: Path) -> list[bytes]:
    data = path.read_bytes()
    pdus = []
    offset = 0
    while offset < len(data):
        end = offset + 4 + int.from_bytes(data[offset : offset + 4], "big")
        pdus.append(data[offset + 4 : end])
        offset = end
    return pdus
