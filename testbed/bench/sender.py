"""Sends frames steadily: ``sender INTERFACE RATE CAPTURE`` or ``sender INTERFACE RATE --user-plane SECONDS``.

From a capture every frame once, in order; or GTP-U for so many seconds, 64 packets a system call, as fast as a busy
eNodeB. Prints how many were sent and at what rate. Runs in the namespace in which it is started.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from epc_monitor.capture import read_capture
from epc_monitor.frames import UDP
from testbed.bench.wire import ipv4

GTPU_PORT: Final = 2152
PAYLOAD_OCTETS: Final = 800
AT_ONCE: Final = 64
PAUSE_S: Final = 0.000_1
_SOL_PACKET, _QDISC_BYPASS = 263, 20


class _IoVector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """``struct mmsghdr``: a message without address or control data, and what was sent of it."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vector", ctypes.POINTER(_IoVector)),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


def user_plane_frame() -> bytes:
    """A G-PDU as an eNodeB and an S-GW exchange them."""
    payload = struct.pack("!BBHI", 0x30, 255, PAYLOAD_OCTETS, 0x1234) + bytes(PAYLOAD_OCTETS)
    datagram = struct.pack("!HHHH", GTPU_PORT, GTPU_PORT, 8 + len(payload), 0) + payload
    return ipv4(IPv4Address("10.3.0.1").packed, IPv4Address("10.3.0.2").packed, UDP, datagram)


def steadily(rate: float, count: int, most: int, send: Callable[[int], int]) -> float:
    """Call ``send(n)``, with at most ``most``, so that ``count`` go out at ``rate`` a second; the seconds it took."""
    sent, began = 0, time.perf_counter()
    while sent < count:
        due = min(count, int((time.perf_counter() - began) * rate) + 1) - sent
        if due > 0:
            sent += send(min(due, most))
        else:
            time.sleep(PAUSE_S)
    return time.perf_counter() - began


def main() -> None:
    interface, rate, *what = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sending:
        sending.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        sending.bind((interface, 0))
        if what[0] == "--user-plane":
            count = round(float(rate) * float(what[1]))
            seconds = steadily(float(rate), count, AT_ONCE, _many(sending, user_plane_frame()))
        else:
            frames = [frame.data for frame in read_capture(Path(what[0]))]
            following = iter(frames)
            count = len(frames)
            seconds = steadily(float(rate), count, 1, lambda _: int(bool(sending.send(next(following)))))
    print(json.dumps({"sent": count, "per_s": round(count / seconds)}))


def _many(sending: socket.socket, frame: bytes) -> Callable[[int], int]:
    """What sends a frame many times with one sendmmsg(2)."""
    vector = _IoVector(frame, len(frame))
    messages = (_Message * AT_ONCE)()
    for message in messages:
        message.vector, message.vectors = ctypes.pointer(vector), 1
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    descriptor = sending.fileno()
    return lambda count: max(0, sendmmsg(descriptor, messages, count, 0))


if __name__ == "__main__":
    main()
