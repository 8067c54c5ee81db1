"""BPF maps from Python: the bpf(2) system call through ctypes, nothing else."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from functools import cache
from mmap import mmap
from pathlib import Path

from mobiscud.core.errors import AdapterError, SetupError

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, OBJ_GET, OBJ_GET_INFO, MAP_LOOKUP_BATCH = 1, 2, 3, 7, 15, 24
ELEMENT = struct.Struct("=I4xQQQ")  # map fd, key, value, flags
BATCH = struct.Struct("=QQQQIIQQ")  # place, place after it, keys, values, number of entries, map fd, flags twice
BATCH_NUMBER = struct.Struct("=32xI")
AT_ONCE = 4096
PLACE_SIZE = 64  # the kernel's note of where it was: four octets of a hash map
OBJECT = struct.Struct("=QII")  # path, fd, flags
INFO = struct.Struct("=IIQ")  # fd, length, where the information goes
PROGRAM_INFO = struct.Struct("=II")  # struct bpf_prog_info up to the id


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """The system call; what the kernel answers in the attributes can be read only from an array."""
    machine = platform.machine()
    if machine not in SYSCALL:
        raise SetupError(f"the number of bpf(2) on {machine} is not known here: add it to {__name__}")
    buffer = ctypes.create_string_buffer(attributes, 128) if isinstance(attributes, bytes) else attributes
    result: int = _libc().syscall(SYSCALL[machine], command, buffer, len(buffer))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def program_id(path: Path) -> int | None:
    """The kernel's number of the program pinned at ``path``; None where there is none."""
    name = ctypes.create_string_buffer(str(path).encode())
    try:
        fd = _bpf(OBJ_GET, OBJECT.pack(ctypes.addressof(name), 0, 0))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return None
    info = ctypes.create_string_buffer(PROGRAM_INFO.size)
    try:
        _bpf(OBJ_GET_INFO, INFO.pack(fd, len(info), ctypes.addressof(info)))
    finally:
        os.close(fd)
    _, number = PROGRAM_INFO.unpack_from(info)
    return int(number)


class BpfMap:
    """A map pinned at ``path``, with keys and values of fixed size."""

    def __init__(self, path: Path, value_size: int) -> None:
        name = ctypes.create_string_buffer(str(path).encode())
        self._fd = _bpf(OBJ_GET, OBJECT.pack(ctypes.addressof(name), 0, 0))
        self._name = path.name
        self._value_size = value_size

    def close(self) -> None:
        """Let go of the map; twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def update(self, key: bytes, value: bytes) -> None:
        """Make or replace an entry; a packet sees the old one or the new one, whole.

        :raises AdapterError: the map is full
        """
        try:
            self._element(MAP_UPDATE_ELEM, key, ctypes.create_string_buffer(value, len(value)))
        except OSError as error:
            raise AdapterError(f"cannot write to the BPF map {self._name!r}: {error.strerror}") from error

    def delete(self, key: bytes) -> None:
        """Remove an entry; harmless where there is none."""
        try:
            self._element(MAP_DELETE_ELEM, key, None)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def lookup(self, key: bytes) -> bytes | None:
        """The value of an entry, or None."""
        value = ctypes.create_string_buffer(self._value_size)
        try:
            self._element(MAP_LOOKUP_ELEM, key, value)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        return value.raw

    def memory(self, size: int) -> mmap:
        """The whole of a map that is made to be shared (BPF_F_MMAPABLE), of that many bytes."""
        return mmap(self._fd, size)

    def items(self, key_size: int) -> Iterator[tuple[bytes, bytes]]:
        """All entries of a hash map. One that comes or goes meanwhile is met or not."""
        keys = ctypes.create_string_buffer(AT_ONCE * key_size)
        values = ctypes.create_string_buffer(AT_ONCE * self._value_size)
        place = ctypes.create_string_buffer(PLACE_SIZE)
        begin, more = 0, True
        while more:
            number, more = self._batch(begin, place, keys, values)
            begin = ctypes.addressof(place)
            octets, contents = keys.raw, values.raw
            for i in range(number):
                key = octets[i * key_size : (i + 1) * key_size]
                yield key, contents[i * self._value_size : (i + 1) * self._value_size]

    def _batch(
        self,
        begin: int,
        place: ctypes.Array[ctypes.c_char],
        keys: ctypes.Array[ctypes.c_char],
        values: ctypes.Array[ctypes.c_char],
    ) -> tuple[int, bool]:
        """Some entries from a place on (0: the beginning); how many there are, and whether there may be more."""
        where = (begin, ctypes.addressof(place), ctypes.addressof(keys), ctypes.addressof(values))
        attributes = ctypes.create_string_buffer(BATCH.pack(*where, AT_ONCE, self._fd, 0, 0), 128)
        more = True
        try:
            _bpf(MAP_LOOKUP_BATCH, attributes)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            more = False
        (number,) = BATCH_NUMBER.unpack_from(attributes)
        return int(number), more

    def _element(self, command: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
        held = ctypes.create_string_buffer(key, len(key))
        address = 0 if value is None else ctypes.addressof(value)
        _bpf(command, ELEMENT.pack(self._fd, ctypes.addressof(held), address, 0))
