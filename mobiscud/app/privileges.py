"""Giving privileges up, for good, once the sockets that needed them are open (capabilities(7), Linux)."""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
from pathlib import Path
from typing import Final

from mobiscud.core.errors import ConfigError, SetupError

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_LAST_CAPABILITY: Final = Path("/proc/sys/kernel/cap_last_cap")

_libc = ctypes.CDLL(None, use_errno=True)


def drop(user: str | None = None) -> None:
    """Drop every capability of this process and of all it may start; become ``user`` if one is named.

    Must come before the first thread is started: capabilities belong to threads.

    :raises ConfigError: there is no such user, or only root could become it
    :raises SetupError: the kernel refuses
    """
    account = None if user is None else _account(user)
    for capability in range(int(_LAST_CAPABILITY.read_text()) + 1):
        _libc.prctl(
            _PR_CAPBSET_DROP, capability, 0, 0, 0
        )  # needs CAP_SETPCAP; without it nothing below can grow either
    if account is not None:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _checked(_libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24)), "capset")


def _account(user: str) -> pwd.struct_passwd:
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"monitor.user: there is no user {user!r}") from None
    if os.geteuid() not in (0, account.pw_uid):
        raise ConfigError(f"monitor.user: only root can become {user!r}; start as root or as {user!r}")
    return account


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise SetupError(f"cannot drop privileges: {what}: {os.strerror(ctypes.get_errno())}")
