"""A broker inside the node, for a first run without a server: amqtt, MQTT 3.1.1, loopback only."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from amqtt.broker import Broker

from mobiscud.core.errors import AdapterError

LOOPBACK = "127.0.0.1"


class EmbeddedBroker:
    """Runs while the context lasts; ``url`` is what ``bus.url`` would say."""

    def __init__(self, port: int = 1883) -> None:
        self.url = f"mqtt://{LOOPBACK}:{port}"
        self._port = port
        self._broker: Broker | None = None

    async def __aenter__(self) -> Self:
        """Start.

        :raises AdapterError: the port is taken
        """
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)  # what it says is raised as well, and told once
        logging.getLogger("transitions").setLevel(logging.ERROR)
        self._broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{self._port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        try:
            await self._broker.start()
        except Exception as error:  # amqtt wraps what the socket said in errors of its own
            self._broker = None
            cause = error.__cause__ or error
            raise AdapterError(
                f"the embedded broker cannot listen on {LOOPBACK}:{self._port} ({cause}): "
                "name your broker in bus.url, or another port in bus.embedded_port"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._broker is not None:
            await self._broker.shutdown()
