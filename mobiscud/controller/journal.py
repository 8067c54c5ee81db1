"""What a controller must remember when it dies: its records, in SQLite.

One row a UE, replaced at every step, in write-ahead mode: a step is remembered before its commands are carried out,
and every command is safe to repeat. No IMSI is in it.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
from pydantic import TypeAdapter, ValidationError

from mobiscud.controller.record import UeRecord
from mobiscud.core.errors import SetupError
from mobiscud.core.ids import UeKey

VERSION: Final = 1
_RECORD: Final = TypeAdapter(UeRecord)

log = structlog.get_logger(__name__)


class Journal:
    """The journal of one controller, open while the context lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        """Open, or make.

        :raises SetupError: the place cannot be written, or holds something else
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
            database = sqlite3.connect(self._path, isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # survives our death; a power cut may cost the last steps
            database.execute("CREATE TABLE IF NOT EXISTS ue (key TEXT PRIMARY KEY, version INTEGER, record TEXT)")
        except (OSError, sqlite3.Error) as error:
            raise SetupError(f"journal {self._path}: {_why(error)} (site.state_dir says where it lies)") from error
        self._database = database
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def load(self) -> dict[UeKey, UeRecord]:
        """All records; one that this version cannot read is left out, and said."""
        found: dict[UeKey, UeRecord] = {}
        for key, version, text in self._opened().execute("SELECT key, version, record FROM ue"):
            try:
                if version != VERSION:
                    raise ValueError(f"of version {version}")
                found[UeKey(key)] = _RECORD.validate_json(text)
            except (ValidationError, ValueError) as error:
                log.warning("record not understood, forgotten", ue=key, error=type(error).__name__)
        return found

    def put(self, ue: UeKey, record: UeRecord) -> None:
        """Remember a record."""
        text = _RECORD.dump_json(record).decode()
        self._opened().execute("INSERT OR REPLACE INTO ue VALUES (?, ?, ?)", (ue, VERSION, text))

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise ValueError("the journal is closed")
        return self._database


def _why(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
