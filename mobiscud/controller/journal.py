"""What a controller must remember when it dies: its records, in SQLite.

One row a UE, replaced at every step, in write-ahead mode: a step is remembered before its commands are carried out,
and every command is safe to repeat. No IMSI is in it.

What is written goes to the write-ahead log, which is memory's work; moving it from there into the database waits for
the disk, so a thread of its own does that now and then.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
from pydantic import TypeAdapter, ValidationError

from mobiscud.controller.record import UeRecord
from mobiscud.core.errors import AdapterError, SetupError
from mobiscud.core.ids import UeKey

VERSION: Final = 2
CHECKPOINT_EVERY: Final = 2_000
"""Records written between two checkpoints: some megabytes of log."""
PUT: Final = (
    "INSERT INTO ue VALUES (?, ?, ?)"  # changed in place: to replace a row would write three times as much
    " ON CONFLICT (key) DO UPDATE SET version = excluded.version, record = excluded.record"
)
_RECORD: Final = TypeAdapter(UeRecord)

log = structlog.get_logger(__name__)


class Journal:
    """The journal of one controller, open while the context lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._keeper: ThreadPoolExecutor | None = None
        self._checkpointing: Future[None] | None = None
        self._written = 0

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
            database.execute("PRAGMA wal_autocheckpoint = 0")  # that is for `_checkpoint`
            database.execute("CREATE TABLE IF NOT EXISTS ue (key TEXT PRIMARY KEY, version INTEGER, record TEXT)")
        except (OSError, sqlite3.Error) as error:
            raise SetupError(f"journal {self._path}: {_why(error)} (site.state_dir says where it lies)") from error
        self._database = database
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="journal")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.shutdown()
            self._keeper = None
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

    def put(self, records: Mapping[UeKey, UeRecord]) -> None:
        """Remember records, all or none of them.

        :raises AdapterError: the disk is full, or fails
        """
        rows = [(ue, VERSION, _RECORD.dump_json(record).decode()) for ue, record in records.items()]
        database = self._opened()
        try:
            with database:
                database.execute("BEGIN")
                database.executemany(PUT, rows)
        except sqlite3.Error as error:
            raise AdapterError(f"journal {self._path}: {error}") from error
        self._written += len(rows)
        if self._written >= CHECKPOINT_EVERY and (self._checkpointing is None or self._checkpointing.done()):
            self._written = 0
            self._checkpointing = self._keep().submit(_checkpoint, self._path)

    def _keep(self) -> ThreadPoolExecutor:
        if self._keeper is None:
            raise ValueError("the journal is closed")
        return self._keeper

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise ValueError("the journal is closed")
        return self._database


def _checkpoint(path: Path) -> None:
    """Move what can be moved from the log into the database; who writes meanwhile is not held up."""
    try:
        database = sqlite3.connect(path)
        try:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            database.close()
    except sqlite3.Error as error:
        log.error("the journal's log cannot be cut short", journal=str(path), error=str(error))


def _why(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
