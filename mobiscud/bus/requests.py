"""Question and answer between controllers, over the bus, with a deadline.

A request is JSON on the asked node's topic: ``{"correlation", "reply_to", "deadline", "epoch", "body"}``; the answer,
on ``reply_to``: ``{"correlation", "ok", "body" | "error"}``. Requests are safe to repeat: what was done is not done
again for the same correlation, its answer is only given again; what was refused may be asked for again. The version is
the topic's.

A deadline is by the clock of the one who answers. Whoever takes a request for late says what time it is there
(``now``); one who still waits for the answer knows by that how far the two clocks are apart, and asks once more.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import structlog

from mobiscud.bus import topics
from mobiscud.core.errors import AdapterError, MobiScudError, RefusedError

Json = dict[str, Any]
Answerer = Callable[[Json], Awaitable[Json]]
"""Takes the body of a request, returns that of the answer; a MobiScudError becomes the answer's ``error``."""

REMEMBERED: Final = 4096
"""Answers that are given again; more than are given while who asked waits and asks again."""
MAX_PENDING: Final = 4096
"""Requests that are being answered, and questions that wait for their answer: of each so many at most."""

log = structlog.get_logger(__name__)


class Bus(Protocol):
    """What is needed of the bus."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, content_type: str | None = None) -> None: ...

    async def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> Callable[[], None]: ...


class Requests:
    """Asks other nodes, and answers them."""

    def __init__(self, bus: Bus, site: str, node: str, clock: Callable[[], float] = time.time) -> None:
        """Make one that begins at ``start``. ``clock``: seconds since the epoch, as this node's host has it."""
        self._bus = bus
        self._clock = clock
        self._ahead_s: dict[str, float] = {}
        self._site = site
        self._node = node
        self._epoch = time.time_ns()
        self._waiting: dict[str, asyncio.Future[Json]] = {}
        self._answerers: dict[str, Answerer] = {}
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Take requests and answers from now on."""
        await self._bus.subscribe(topics.reply(self._site, self._node), self._on_reply)
        await self._bus.subscribe(topics.request(self._site, self._node, "+"), self._on_request)

    async def stop(self) -> None:
        """End what is being answered."""
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def answer(self, name: str, answerer: Answerer) -> None:
        """Answer requests called ``name``."""
        self._answerers[name] = answerer

    async def ask(self, node: str, name: str, body: Json, *, timeout_s: float, correlation: str | None = None) -> Json:
        """Ask another node and wait for its answer.

        Asked again with the same ``correlation``, it is done once, however often it arrives.

        :raises RefusedError: it refused
        :raises AdapterError: it was silent until the deadline
        """
        if len(self._waiting) >= MAX_PENDING:
            raise AdapterError(f"{node} {name}: too many requests wait for an answer")
        correlation = correlation or uuid.uuid4().hex
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(until):
                reply = await self._ask_once(node, name, body, until - loop.time(), correlation)
                now = reply.get("now")
                if isinstance(now, int | float):  # not late by our patience: its clock is ahead of ours, or was set
                    self._ahead_s[node] = now - self._clock()
                    reply = await self._ask_once(node, name, body, until - loop.time(), correlation)
        except TimeoutError:
            raise AdapterError(f"{node} gave no answer to {name} within {timeout_s:g} s") from None
        if not reply.get("ok"):
            raise RefusedError(f"{node} refused {name}: {reply.get('error')}")
        answer = reply.get("body")
        return answer if isinstance(answer, dict) else {}

    async def _ask_once(self, node: str, name: str, body: Json, timeout_s: float, correlation: str) -> Json:
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = future
        request = {
            "correlation": correlation,
            "reply_to": topics.reply(self._site, self._node),
            "deadline": self._clock() + self._ahead_s.get(node, 0.0) + timeout_s,
            "epoch": self._epoch,
            "body": body,
        }
        self._bus.publish(topics.request(self._site, node, name), json.dumps(request).encode())
        try:
            return await future
        finally:
            del self._waiting[correlation]

    def _on_reply(self, topic: str, payload: bytes) -> None:
        reply = _object(payload)
        future = self._waiting.get(str(reply.get("correlation")))
        if future is not None and not future.done():
            future.set_result(reply)

    def _on_request(self, topic: str, payload: bytes) -> None:
        request = _object(payload)
        name = topic.rpartition("/")[2]
        correlation, reply_to = request.get("correlation"), request.get("reply_to")
        deadline, body = request.get("deadline"), request.get("body")
        if not (
            isinstance(correlation, str)
            and isinstance(reply_to, str)
            and isinstance(deadline, int | float)
            and isinstance(body, dict)
            and name in self._answerers
        ):
            log.warning("request not understood", request=name)
            return
        if correlation in self._answers:
            self._bus.publish(reply_to, self._answers[correlation])
        elif correlation in self._tasks:
            return  # it is being answered
        elif len(self._tasks) >= MAX_PENDING:
            log.warning("too many requests at once: this one is not answered", request=name)
        else:
            task = asyncio.create_task(
                self._respond(name, correlation, reply_to, deadline, body), name=f"answer-{name}"
            )
            self._tasks[correlation] = task
            task.add_done_callback(lambda _: self._tasks.pop(correlation, None))

    async def _respond(self, name: str, correlation: str, reply_to: str, deadline: float, body: Json) -> None:
        reply: Json = {"correlation": correlation, "ok": False}
        now = self._clock()
        if deadline < now:
            reply |= {"error": "the deadline had passed", "now": now}
        else:
            try:
                reply |= {"ok": True, "body": await self._answerers[name](body)}
            except MobiScudError as error:
                reply["error"] = str(error)
            except Exception:
                log.exception("answering failed", request=name)
                reply["error"] = "internal error"
        payload = json.dumps(reply).encode()
        if reply["ok"]:
            self._answers[correlation] = payload
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        self._bus.publish(reply_to, payload)


def _object(payload: bytes) -> Json:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
