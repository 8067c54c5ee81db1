"""The key behind the pseudonyms: from the configuration, or from a file that is made once."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from epc_monitor.identity import UeKeys
from mobiscud.core.config import PrivacyConfig
from mobiscud.core.errors import ConfigError

KEY_OCTETS = 32


def keys(config: PrivacyConfig) -> UeKeys:
    """The maker of UE keys.

    :raises ConfigError: the key file can neither be read nor made, or others may read it
    """
    if config.key is not None:
        return UeKeys(config.key.encode())
    path = config.key_file or _default_path()
    try:
        return UeKeys(_read(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"privacy.key_file: {path}: {error.strerror}") from error
    try:
        return UeKeys(_make(path))
    except OSError as error:
        raise ConfigError(f"privacy.key_file: {path} cannot be made: {error.strerror}") from error


def _default_path() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/mobiscud/pseudonym.key")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "mobiscud" / "pseudonym.key"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & 0o077:
            raise ConfigError(f"privacy.key_file: {path} can be read by others: chmod 600 {path}")
        key = file.read()
    if len(key) < KEY_OCTETS:
        raise ConfigError(f"privacy.key_file: {path} is too short for a key: remove it, and a new one is made")
    return key


def _make(path: Path) -> bytes:
    """Write a new key; when another process was first, its key is the one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = secrets.token_bytes(KEY_OCTETS)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, key)
        os.fsync(handle)
        os.link(draft, path)  # whole, or not at all; fails where there is one
    except FileExistsError:
        return _read(path)
    finally:
        os.close(handle)
        draft.unlink()
    return key
