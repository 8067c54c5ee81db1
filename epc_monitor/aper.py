"""Aligned PER (ITU-T X.691), the parts that S1AP needs.

Positions are counted in bits where a field need not begin at an octet (``bit``), in octets where it always does
(``offset``). Nothing here checks the end of the data: reading beyond it raises IndexError or yields a position beyond
it, and who called compares that position with the end of the information element. A whole element is therefore bounded
by one comparison.
"""

from __future__ import annotations

from mobiscud.core.errors import DecodeError

FRAGMENT = 16384


def bits(data: bytes, bit: int, count: int) -> int:
    """``count`` bits, 16 at most, from any position."""
    offset = bit >> 3
    octets = data[offset : offset + 3]
    if not octets:
        raise IndexError
    value = int.from_bytes(octets, "big") << 8 * (3 - len(octets))
    return value >> 24 - (bit & 7) - count & (1 << count) - 1


def open_type(data: bytes, offset: int) -> tuple[bytes, int, int, int]:
    """What holds the content of an open type or octet string, where the content begins and ends, and what follows.

    That is ``data`` itself, except where the content is fragmented (X.691 11.9.3.8); then it is put together.
    """
    length = data[offset]
    if length < 128:
        end = offset + 1 + length
        return data, offset + 1, end, end
    if length < 192:
        end = offset + 2 + ((length & 63) << 8 | data[offset + 1])
        return data, offset + 2, end, end
    whole, offset = defragment(data, offset)
    return whole, 0, len(whole), offset


def defragment(data: bytes, offset: int) -> tuple[bytes, int]:
    """Put together content that comes in fragments of 16 to 64 Ki, then a rest below 16 Ki."""
    parts = []
    while (length := data[offset]) >= 192:
        if not 1 <= length & 63 <= 4:
            raise DecodeError("fragment of a length that does not exist", offset)
        size = (length & 63) * FRAGMENT
        parts.append(data[offset + 1 : offset + 1 + size])
        offset += 1 + size
    if length < 128:
        start = offset + 1
    else:
        length = (length & 63) << 8 | data[offset + 1]
        start = offset + 2
    parts.append(data[start : start + length])
    if start + length > len(data):
        raise IndexError
    return b"".join(parts), start + length


def length_determinant(data: bytes, offset: int) -> tuple[int, int]:
    """A general length below 16 Ki, and the octet after it (X.691 11.9)."""
    length = data[offset]
    if length < 128:
        return length, offset + 1
    if length < 192:
        return (length & 63) << 8 | data[offset + 1], offset + 2
    raise DecodeError("a length that only an open type can have", offset)


def skip_open_type(data: bytes, offset: int) -> int:
    """The octet after an open type."""
    return open_type(data, offset)[3]


def skip_extension_container(data: bytes, bit: int) -> int:
    """Step over a ProtocolExtensionContainer: 1 to 65535 of id, criticality and open type (TS 36.413 9.3.6)."""
    offset = bit + 7 >> 3
    count = (data[offset] << 8 | data[offset + 1]) + 1
    offset += 2
    for _ in range(count):
        offset = skip_open_type(data, offset + 3)
    return offset << 3


def skip_extension_additions(data: bytes, bit: int) -> int:
    """Step over the extension additions at the end of a SEQUENCE (X.691 19.7): a bitmap, an open type for each."""
    if bits(data, bit, 1):
        count, offset = length_determinant(data, bit + 8 >> 3)
        bit = offset << 3
    else:
        count = bits(data, bit + 1, 6) + 1
        bit += 7
    present = 0
    for i in range(count):
        present += bits(data, bit + i, 1)
    offset = bit + count + 7 >> 3
    for _ in range(present):
        offset = skip_open_type(data, offset)
    return offset << 3


def skip_tail(data: bytes, bit: int, extended: int, container: int) -> int:
    """Step over what may end a SEQUENCE of S1AP: iE-Extensions, then extension additions."""
    if container:
        bit = skip_extension_container(data, bit)
    if extended:
        bit = skip_extension_additions(data, bit)
    return bit


def small_number(data: bytes, bit: int) -> tuple[int, int]:
    """A normally small non-negative number (X.691 11.6), and the bit after it."""
    if not bits(data, bit, 1):
        return bits(data, bit + 1, 6), bit + 7
    length, offset = length_determinant(data, bit + 8 >> 3)
    return int.from_bytes(data[offset : offset + length], "big"), offset + length << 3


def extended_integer(data: bytes, bit: int) -> tuple[int, int]:
    """An integer outside the root of its extensible range: length and two's complement (X.691 13.1, 11.8)."""
    length, offset = length_determinant(data, bit + 7 >> 3)
    return int.from_bytes(data[offset : offset + length], "big", signed=True), offset + length << 3


def ranged_integer(data: bytes, bit: int, length_bits: int) -> tuple[int, int]:
    """An integer of a constrained range above 64 Ki: its number of octets in ``length_bits`` bits, then the octets."""
    length = bits(data, bit, length_bits) + 1
    offset = bit + length_bits + 7 >> 3
    return int.from_bytes(data[offset : offset + length], "big"), offset + length << 3


def octet_string(data: bytes, bit: int) -> tuple[bytes, int]:
    """An octet string of any length, aligned, and the bit after it."""
    whole, start, end, following = open_type(data, bit + 7 >> 3)
    return whole[start:end], following << 3
