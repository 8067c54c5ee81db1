"""What waits to be published: in order, bounded in memory, and honest about what it had to give up.

Beyond the bound the oldest messages go, since what is true now matters most. Of retained messages only the last of
each topic is worth sending, and that one is never given up: it is what a later reader finds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SPOOL_BYTES: Final = 256 << 20

_OVERHEAD = 256
"""About what Python needs for a message beside its text."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published."""

    topic: str
    payload: bytes
    retain: bool = False
    content_type: str | None = None

    @property
    def size(self) -> int:
        """Memory it takes, in octets, roughly."""
        return len(self.topic) + len(self.payload) + _OVERHEAD


class Spool:
    """A queue of messages of at most ``limit`` octets; the retained ones that outlive the bound are not counted.

    ``lost`` counts the messages given up.
    """

    def __init__(self, limit: int = SPOOL_BYTES) -> None:
        self.lost = 0
        self._limit = limit
        self._size = 0
        self._queue: deque[Message] = deque()
        self._current: dict[str, Message] = {}  # the last retained message of each topic, while it is queued
        self._belated: dict[str, Message] = {}  # those that lost their place in the queue; they go last

    def __len__(self) -> int:
        return len(self._queue) + len(self._belated)

    def put(self, message: Message) -> None:
        """Append a message; the oldest ones make room."""
        if message.retain:
            self._current[message.topic] = message
            self._belated.pop(message.topic, None)
        self._queue.append(message)
        self._size += message.size
        while self._size > self._limit and len(self._queue) > 1:
            oldest = self._pop()
            if not oldest.retain:
                self.lost += 1
            elif self._current.get(oldest.topic) is oldest:
                self._belated[oldest.topic] = self._current.pop(oldest.topic)

    def take(self) -> Message | None:
        """The next message to send; None when there is none."""
        while self._queue:
            message = self._pop()
            if not message.retain:
                return message
            if self._current.get(message.topic) is message:
                return self._current.pop(message.topic)
        for topic in self._belated:
            return self._belated.pop(topic)
        return None

    def put_back(self, messages: Iterable[Message]) -> None:
        """Those that were taken and not delivered, in their order: they are first again."""
        for message in reversed(tuple(messages)):
            if message.retain:
                if message.topic in self._current or message.topic in self._belated:
                    continue  # there is a later one
                self._current[message.topic] = message
            self._queue.appendleft(message)
            self._size += message.size

    def _pop(self) -> Message:
        message = self._queue.popleft()
        self._size -= message.size
        return message
