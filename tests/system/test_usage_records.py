"""What the usage records of a whole site add up to, against a stream that crosses cells and cloudlets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from testbed import results
from testbed.bench import handover
from testbed.experiment import RunningTestbed
from testbed.guest.client import ECHO_PORT
from testbed.node_configs import GATEWAY
from testbed.setting import UE, Setting
from testbed.topology import Delays

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(240),
]

LIMIT_S = 60.0
CLOUDLETS = ("c1", "c2", "c3")
RULES = [
    {
        "traffic_rule_id": "echo",
        "priority": 1,
        "traffic_filter": [{"protocol": "udp", "dst_port": ECHO_PORT}],
        "action": "FORWARD_DECAPSULATED",
    },
    {"traffic_rule_id": "rest", "action": "FORWARD_DECAPSULATED"},
]
HEADERS = 20 + 8
"""Of IPv4 and UDP."""


def last_of_each(events: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What counts of the records of the stream."""
    reported = (e["data"] for e in events if e["type"] == "org.mobiscud.usage.reported")
    return {data["record"]: data for data in reported if data["rule"] == "echo"}


async def test_the_records_add_up_to_the_stream(tmp_path: Path) -> None:
    setting = Setting(delays=Delays(), dwell_s=0.0, policy="stay", preferred=True)
    async with RunningTestbed(setting, tmp_path, lambda line: None) as bed:
        subscribers = [subscriber.offload() for subscriber in bed.subscribers]
        for name in CLOUDLETS:
            section = {"gateway": GATEWAY, "subscribers": subscribers, "rules": RULES, "usage_interval_s": 1}
            bed.reload_node(name, offload=section)
        async with asyncio.timeout(LIMIT_S):
            for name in CLOUDLETS:
                while "read again and in force" not in bed.nodes[name].log.read_text():  # noqa: ASYNC110  # a log
                    await asyncio.sleep(0.05)
        await handover.walk(bed, lambda line: None, each=1)
        await bed.ran.detach(UE)
        for name in CLOUDLETS:
            ended = {"cloudlet": name, "rule": "echo", "status": "final"}
            await bed.event("usage.reported", after=0, within_s=LIMIT_S, **ended)
        records = last_of_each(bed.events)
    stream = results.load_pings(tmp_path / "stream.csv")
    assert all(ping.received_ns is not None for ping in stream)
    for direction in ("uplink", "downlink"):
        packets = sum(record[direction]["packets"] for record in records.values())
        assert packets == len(stream), f"{direction}: each packet in one record, once"
        assert sum(record[direction]["bytes"] for record in records.values()) == packets * (HEADERS + 64)
    assert {record["status"] for record in records.values()} == {"final"}
    assert {record["cloudlet"] for record in records.values()} == set(CLOUDLETS)
    assert {(record["e_rab_id"], record["qci"], record["apn"]) for record in records.values()} == {(5, 9, "internet")}
    assert all(record["start"] < record["end"] for record in records.values())
