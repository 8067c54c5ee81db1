"""What Prometheus is told, and by what door."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mobiscud.app.measures import Measures
from mobiscud.controller.backlog import Backlog
from mobiscud.controller.record import Phase, UeRecord
from mobiscud.controller.usage import UsageReports
from mobiscud.core.config import parse
from mobiscud.core.edge import PathSpec, Pvm
from mobiscud.core.errors import AdapterError, ConfigError, SetupError
from mobiscud.core.events import Event, PvmMigrated, PvmMigrationFailed, UeIdle
from mobiscud.core.ids import CloudletId, FTeid, PvmId, Teid, UeKey
from mobiscud.core.usage import Carried, Usage, UsageOf
from mobiscud.web.metrics import served

UE = UeKey("ue-0000000000000001")
PVM = Pvm(PvmId("p1"), "172.16.1.10", "52:54:00:00:00:10")
C1 = CloudletId("c1")
ABOUT: dict[str, Any] = {"at": 1, "origin": b"", "ue": UE}


class Controller:
    records: Mapping[UeKey, UeRecord] = {UE: UeRecord(PVM, C1, Phase.SERVING)}
    backlog = Backlog(3, 10_000, 17, 0.5)


class Switch:
    async def apply(self, ue: UeKey, path: PathSpec | None) -> tuple[str, ...]:
        if path is not None:
            raise AdapterError("refused")
        return ("rule",)

    async def apply_all(self, paths: Mapping[UeKey, PathSpec | None]) -> Mapping[UeKey, tuple[str, ...]]:
        return {}


def told(measures: Measures) -> dict[str, float]:
    text = generate_latest(measures.registry).decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {
        sample.name + "".join(f",{value}" for _, value in sorted(sample.labels.items())): sample.value
        for sample in samples
    }


async def test_everything_that_an_operator_needs() -> None:
    measures = Measures()
    published: list[Event] = []
    publish = measures.counted(published.append, "controller")
    publish(PvmMigrated(**ABOUT, pvm=PVM, downtime_ms=20.0, total_ms=900.0))
    publish(PvmMigrationFailed(**ABOUT, pvm=PVM, reason="full"))
    measures.counted(published.append, "monitor")(UeIdle(**ABOUT, enb=None, cause=None))
    assert len(published) == 3
    measures.node(lambda: {"decode_errors": 2, "kernel_drops": 1, "spool": 4}, lambda: 1)
    usage = UsageReports(C1)
    usage.events(
        [Usage(1, UsageOf(UE, FTeid("1", Teid(1)), "web"), 1, Carried(5, 500), Carried(), ended=False)], 2, interim=True
    )
    controller: Any = Controller()
    measures.controller(controller, usage, lambda: {"uplink": 3}, lambda: {"forged": 9})
    switch = measures.timed(Switch())
    assert await switch.apply(UE, None) == ("rule",)
    with pytest.raises(AdapterError):
        await switch.apply(UE, PathSpec("45.45.0.2", PVM, C1, C1))
    found = told(measures)
    expected = {
        "mobiscud_events_published_total,controller,pvm.migrated": 1,
        "mobiscud_events_published_total,monitor,ue.idle": 1,
        "mobiscud_decode_errors_total": 2,
        "mobiscud_kernel_drops_total": 1,
        "mobiscud_spool": 4,
        "mobiscud_configurations_refused_total": 1,
        "mobiscud_ues,serving": 1,
        "mobiscud_ues,parked": 0,
        "mobiscud_rules,uplink": 3,
        "mobiscud_datapath_packets_total,forged": 9,
        "mobiscud_path_change_seconds_count": 2,
        "mobiscud_migrations_total,done": 1,
        "mobiscud_migrations_total,failed": 1,
        "mobiscud_migration_downtime_seconds_bucket,0.02": 1,
        "mobiscud_migration_seconds_sum": 0.9,
        "mobiscud_backlog": 3,
        "mobiscud_backlog_highest": 17,
        "mobiscud_backlog_at_limit_seconds_total": 0.5,
        "mobiscud_usage_bytes_total,uplink,web": 500,
        "mobiscud_usage_packets_total,downlink,web": 0,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert not any("ue-" in name for name in found), "no label names a UE"


async def ask(port: int, text: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], body


@pytest.mark.parametrize(
    ("request_", "status", "start"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK", b"# HELP seven"),
        (b"GET /metrics?a=b HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK", b"# HELP seven"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK", b""),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed", b"only GET"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found", b"there is only /metrics"),
        (b"hello\r\n\r\n", b"HTTP/1.1 400 Bad Request", b"no HTTP"),
        (b"x" * 20_000, b"", b""),
    ],
)
async def test_the_door(request_: bytes, status: bytes, start: bytes) -> None:
    registry = CollectorRegistry()
    Gauge("seven", "seven", registry=registry).set(7)
    async with served("127.0.0.1", 0, registry) as port:
        try:
            line, body = await ask(port, request_)
        except ConnectionResetError:
            line, body = b"", b""
        assert line == status
        assert body.startswith(start)


async def test_an_address_that_is_taken_is_said() -> None:
    registry = CollectorRegistry()
    async with served("127.0.0.1", 0, registry) as port:
        with pytest.raises(SetupError, match=r"metrics\.listen: 127\.0\.0\.1"):
            async with served("127.0.0.1", port, registry):
                pass


def test_where_it_listens() -> None:
    assert parse("").metrics.address is None
    assert parse("metrics: {listen: '127.0.0.1:9464'}").metrics.address == ("127.0.0.1", 9464)
    assert parse("metrics: {listen: '[::1]:9464'}").metrics.address == ("::1", 9464)
    for wrong in ("9464", ":9464", "localhost:", "localhost:99999"):
        with pytest.raises(ConfigError, match=r"metrics\.listen: is an address and a port"):
            parse(f"metrics: {{listen: '{wrong}'}}")
