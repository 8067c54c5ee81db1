"""Requests between controllers: the peer down, slow, restarted, or answering twice. Each has its outcome."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from mobiscud.bus.requests import Requests
from mobiscud.core.errors import AdapterError

SHORT_S = 0.05


class Bus:
    """A bus in memory. ``hold`` keeps what is published until it is let go."""

    def __init__(self) -> None:
        self._handlers: list[tuple[str, Callable[[str, bytes], None]]] = []
        self.hold = False
        self.held: list[tuple[str, bytes]] = []
        self.said: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None) -> None:
        self.said.append((topic, payload))
        if self.hold:
            self.held.append((topic, payload))
        else:
            self.deliver(topic, payload)

    def deliver(self, topic: str, payload: bytes) -> None:
        for topic_filter, handler in tuple(self._handlers):
            if topic_filter == topic or (topic_filter.endswith("/+") and topic.startswith(topic_filter[:-1])):
                asyncio.get_running_loop().call_soon(handler, topic, payload)

    def let_go(self) -> None:
        self.hold = False
        held, self.held = self.held, []
        for topic, payload in held:
            self.deliver(topic, payload)

    async def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> Callable[[], None]:
        entry = (topic_filter, handler)
        self._handlers.append(entry)
        return lambda: self._handlers.remove(entry)


class Deeds:
    """A peer that counts what it does, and refuses for a while."""

    def __init__(self, refuse: int = 0) -> None:
        self.done: list[dict[str, Any]] = []
        self._refuse = refuse

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._refuse:
            self._refuse -= 1
            raise AdapterError("overloaded")
        self.done.append(body)
        return {"number": len(self.done)}


async def pair(deeds: Deeds) -> tuple[Bus, Requests]:
    """Node a, which asks node b."""
    bus = Bus()
    asker = Requests(bus, "lab", "a")
    await asker.start()
    await peer(bus, deeds)
    return bus, asker


async def peer(bus: Bus, deeds: Deeds, clock: Callable[[], float] = time.time) -> None:
    answerer = Requests(bus, "lab", "b", clock)
    answerer.answer("moved", deeds.answer)
    await answerer.start()


async def test_a_peer_that_is_down_is_an_error_at_the_deadline() -> None:
    bus = Bus()
    asker = Requests(bus, "lab", "a")
    await asker.start()
    with pytest.raises(AdapterError, match="no answer"):
        await asker.ask("b", "moved", {}, timeout_s=SHORT_S)


async def test_what_a_slow_peer_hears_after_the_deadline_is_not_done_and_may_be_asked_for_again() -> None:
    deeds = Deeds()
    bus, asker = await pair(deeds)
    bus.hold = True
    with pytest.raises(AdapterError, match="no answer"):
        await asker.ask("b", "moved", {}, timeout_s=SHORT_S, correlation="once")
    request = json.loads(bus.held[0][1])
    bus.held[0] = (bus.held[0][0], json.dumps(request | {"deadline": request["deadline"] - 60}).encode())
    bus.let_go()
    for _ in range(10):
        await asyncio.sleep(0)  # the refusal comes, and nobody waits for it
    assert deeds.done == []
    assert await asker.ask("b", "moved", {}, timeout_s=5.0, correlation="once") == {"number": 1}


async def test_a_peer_whose_clock_is_set_does_what_is_asked() -> None:
    deeds, ahead_s = Deeds(), 0.0
    bus = Bus()
    asker = Requests(bus, "lab", "a")
    await asker.start()
    await peer(bus, deeds, lambda: time.time() + ahead_s)
    for number, ahead in enumerate((0.0, 3600.0, 3600.0, -3600.0, 7200.0), start=1):
        ahead_s = ahead
        assert await asker.ask("b", "moved", {}, timeout_s=5.0) == {"number": number}
    asked = sum(topic.endswith("request/moved") for topic, _ in bus.said)
    assert asked == 5 + 2  # twice it first had to hear what time it is there


async def test_what_was_refused_may_be_asked_for_again() -> None:
    deeds = Deeds(refuse=1)
    _, asker = await pair(deeds)
    with pytest.raises(AdapterError, match="overloaded"):
        await asker.ask("b", "moved", {}, timeout_s=5.0, correlation="once")
    assert await asker.ask("b", "moved", {}, timeout_s=5.0, correlation="once") == {"number": 1}


async def test_an_answer_that_was_lost_is_given_again_and_nothing_done_twice() -> None:
    deeds = Deeds()
    _, asker = await pair(deeds)
    assert await asker.ask("b", "moved", {}, timeout_s=5.0, correlation="once") == {"number": 1}
    assert await asker.ask("b", "moved", {}, timeout_s=5.0, correlation="once") == {"number": 1}
    assert len(deeds.done) == 1


async def test_a_peer_that_answers_twice_is_heard_once() -> None:
    deeds = Deeds()
    bus, asker = await pair(deeds)
    assert await asker.ask("b", "moved", {}, timeout_s=5.0, correlation="first") == {"number": 1}
    topic, answer = bus.said[-1]
    asking = asyncio.create_task(asker.ask("b", "moved", {}, timeout_s=5.0, correlation="second"))
    bus.deliver(topic, answer)
    assert await asking == {"number": 2}


async def test_a_peer_that_was_restarted_has_forgotten_what_it_did() -> None:
    deeds = Deeds()
    bus, asker = await pair(deeds)
    await asker.ask("b", "moved", {}, timeout_s=5.0, correlation="once")
    bus._handlers = [(name, handler) for name, handler in bus._handlers if "/b/" not in name]
    await peer(bus, deeds)
    assert await asker.ask("b", "moved", {}, timeout_s=5.0, correlation="once") == {"number": 2}


async def test_what_waits_and_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobiscud.bus.requests.MAX_PENDING", 10)
    monkeypatch.setattr("mobiscud.bus.requests.REMEMBERED", 5)
    bus = Bus()
    asker, answerer = Requests(bus, "lab", "n1"), Requests(bus, "lab", "n2")
    await asker.start()
    await answerer.start()
    free, answered = asyncio.Event(), 0

    async def slow(body: dict[str, Any]) -> dict[str, Any]:
        nonlocal answered
        await free.wait()
        answered += 1
        return {}

    answerer.answer("do", slow)
    asking = [asyncio.create_task(asker.ask("n2", "do", {}, timeout_s=30)) for _ in range(10)]
    await asyncio.sleep(0)
    with pytest.raises(AdapterError, match="too many requests wait"):
        await asker.ask("n2", "do", {}, timeout_s=30)
    third = Requests(bus, "lab", "n3")
    await third.start()
    with pytest.raises(AdapterError, match="gave no answer"):  # whoever asks one more is not listened to
        await third.ask("n2", "do", {}, timeout_s=SHORT_S)
    free.set()
    assert await asyncio.gather(*asking) == [{}] * 10
    assert answered == 10
    assert len(answerer._answers) == 5
    assert await third.ask("n2", "do", {}, timeout_s=30) == {}
