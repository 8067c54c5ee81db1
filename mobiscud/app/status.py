"""``mobiscud status``: asks every controller over the bus what it sees, and shows it together."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

from mobiscud.bus import topics
from mobiscud.bus.mqtt import Broker, MqttBus
from mobiscud.bus.requests import Requests
from mobiscud.controller.status import together
from mobiscud.core.config import Config
from mobiscud.core.errors import AdapterError, ConfigError

ANSWER_S: Final = 3.0
DISCOVERY_S: Final = 1.0
"""How long the broker may take to tell all that is retained."""

Json = dict[str, Any]


def run(config: Config, *, url: str | None, as_json: bool) -> None:
    """Print what the controllers see.

    :raises ConfigError: no broker is named
    :raises AdapterError: it is not there, or no controller has answered
    """
    url = url or config.bus.url
    if url is None:
        raise ConfigError("bus.url: name the broker, in the configuration or with --bus mqtt://HOST:1883")
    answers = asyncio.run(_ask_all(Broker.from_config(config.bus, url), config))
    told = [answer for _, answer in answers if isinstance(answer, dict)]
    silent = [f"{node}: {error}" for node, error in answers if isinstance(error, str)]
    if told:
        click.echo(json.dumps({**together(told), "silent": silent}) if as_json else table(together(told)))
    for line in silent:
        click.echo(f"no status of {line}", err=True)
    if not told:
        raise AdapterError("no controller has answered" if answers else "no controller is known on this bus")


async def _ask_all(broker: Broker, config: Config) -> list[tuple[str, Json | str]]:
    async with MqttBus(broker) as bus:
        nodes = sorted({c.node for c in config.cloudlets}) or await _controllers(bus, config.site.name)
        requests = Requests(bus, config.site.name, f"status-{secrets.token_hex(4)}")
        await requests.start()
        try:
            answers = await asyncio.gather(*(_ask(requests, node) for node in nodes))
        finally:
            await requests.stop()
    return list(zip(nodes, answers, strict=True))


async def _ask(requests: Requests, node: str) -> Json | str:
    try:
        return await requests.ask(node, "status", {}, timeout_s=ANSWER_S)
    except AdapterError as error:
        return str(error)


async def _controllers(bus: MqttBus, site: str) -> list[str]:
    """The nodes that say of themselves that they control something."""
    found: set[str] = set()

    def on_health(topic: str, payload: bytes) -> None:
        try:
            health = json.loads(payload)
            if "controller" in health["roles"] and health["status"] == "online":
                found.add(str(health["node"]))
        except (ValueError, KeyError, TypeError):
            return  # somebody else's message

    await bus.subscribe(topics.health(site, "+"), on_health)
    await asyncio.sleep(DISCOVERY_S)
    return sorted(found)


def table(status: Json) -> str:
    """For people."""
    cloudlets = [
        (
            c["cloudlet"],
            c.get("node", ""),
            c.get("mode", ""),
            ", ".join(f"{number} {phase}" for phase, number in c["phases"].items()) or "-",
            ", ".join(f"{number} {kind}" for kind, number in c.get("rules", {}).items()) or "-",
            c.get("backlog", ""),
        )
        for c in status["cloudlets"]
    ]
    ues = [
        (
            ue["ue"],
            ue["ue_ip"],
            ue["apn"],
            ue["ue_at"] or ("idle, or nowhere" if ue["registered"] else "away"),
            ue["pvm"]["id"],
            ",".join(ue["pvm_at"]),
            " ".join(f"{cloudlet}:{phase}" for cloudlet, phase in ue["phases"].items()),
        )
        for ue in status["ues"]
    ]
    pvms = [(pvm["id"], pvm["address"], pvm["mac"], ",".join(pvm["at"]), pvm["ue"]) for pvm in status["personal_vms"]]
    return "\n\n".join(
        (
            _columns(("CLOUDLET", "NODE", "MODE", "UES", "RULES", "BACKLOG"), cloudlets),
            _columns(("UE", "ADDRESS", "APN", "AT", "PERSONAL VM", "VM AT", "OFFLOAD"), ues),
            _columns(("PERSONAL VM", "ADDRESS", "MAC", "AT", "UE"), pvms),
        )
    )


def _columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [tuple(head), *(tuple("-" if cell in (None, "") else str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
