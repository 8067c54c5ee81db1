"""Times as the contract writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache


def rfc3339(at: int) -> str:
    """Nanoseconds since the epoch as RFC 3339, UTC, microseconds."""
    seconds, nanoseconds_ = divmod(at, 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds_ // 1000:06d}Z"


@lru_cache(16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def nanoseconds(text: str) -> int:
    """The reverse of :func:`rfc3339`.

    :raises ValueError: no RFC 3339 time, or one without an offset
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without an offset")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
