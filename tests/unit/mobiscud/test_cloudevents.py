"""Events are written as the contract says, and read back as they were."""

import json
from dataclasses import replace

import pytest

from mobiscud.bus.cloudevents import EVENT_TYPES, Envelopes, decode, encode, nanoseconds, rfc3339, unwrap
from mobiscud.core.edge import Pvm
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import (
    Event,
    HandoverCompleted,
    MonitorDesynchronised,
    MonitorDropped,
    PvmMigrated,
    UeAttached,
    Where,
)
from mobiscud.core.ids import (
    CellId,
    CloudletId,
    Ecgi,
    EnbId,
    ERabId,
    FTeid,
    Imsi,
    Plmn,
    PvmId,
    Tac,
    Tai,
    Teid,
    UeKey,
)
from mobiscud.core.ue import BearerContext, Cause, Enb, HandoverEnd, HandoverKind, Pdn

PLMN = Plmn("999", "70")
UE = UeKey("ue-0123456789abcdef")
ENB = Enb(PLMN, EnbId(1234), "10.0.0.11")
BEARER = BearerContext(ERabId(5), 9, FTeid("10.0.0.1", Teid(0xA5C4)), FTeid("10.0.0.11", Teid(0x2001)))
ATTACHED = UeAttached(
    at=1_700_000_000_123_456_000,
    origin=b"place",
    ue=UE,
    imsi=Imsi("999700000000001"),
    ue_ip=("45.45.0.2",),
    enb=ENB,
    ecgi=Ecgi(PLMN, CellId(0xA1B2C)),
    tai=Tai(PLMN, Tac(1)),
    bearers=(BEARER,),
    pdns=(Pdn(ERabId(5), "internet", ("45.45.0.2",)),),
)
COMPLETED = HandoverCompleted(
    at=5_000,
    origin=b"x",
    ue=UE,
    kind=HandoverKind.S1,
    source=HandoverEnd(ENB),
    target=HandoverEnd(None, Ecgi(PLMN, CellId(7)), None),
    cause=Cause("radio_network", 2, "successful-handover"),
    enb=None,
    ecgi=None,
    tai=None,
    bearers=(),
)
MIGRATED = PvmMigrated(
    at=1_000,
    origin=b"m",
    ue=UE,
    pvm=Pvm(PvmId("pvm-1"), "172.16.1.10", "52:54:00:00:00:10"),
    from_cloudlet=CloudletId("c1"),
    to_cloudlet=CloudletId("c2"),
    downtime_ms=21.5,
    total_ms=1200.0,
)
DROPPED = MonitorDropped(at=0, origin=b"", count=3, where=Where("eth0", "kernel"))


def test_data_has_the_forms_of_the_contract() -> None:
    envelope = Envelopes("/mobiscud/lab/monitor", show_imsi=True).wrap(ATTACHED)
    assert envelope["type"] == "org.mobiscud.ue.attached"
    assert envelope["subject"] == UE
    assert envelope["time"] == "2023-11-14T22:13:20.123456Z"
    assert envelope["data"] == {
        "ue": UE,
        "imsi": "999700000000001",
        "ue_ip": ["45.45.0.2"],
        "enb": {"plmn": {"mcc": "999", "mnc": "70"}, "enb_id": 1234, "address": "10.0.0.11"},
        "ecgi": {"plmn": {"mcc": "999", "mnc": "70"}, "cell_id": "0x00a1b2c"},
        "tai": {"plmn": {"mcc": "999", "mnc": "70"}, "tac": "0x0001"},
        "bearers": [
            {
                "e_rab_id": 5,
                "qci": 9,
                "uplink": {"address": "10.0.0.1", "teid": "0x0000a5c4"},
                "downlink": {"address": "10.0.0.11", "teid": "0x00002001"},
            }
        ],
        "pdns": [{"e_rab_id": 5, "apn": "internet", "addresses": ["45.45.0.2"]}],
    }


@pytest.mark.parametrize("event", [ATTACHED, COMPLETED, MIGRATED, DROPPED], ids=lambda e: e.TYPE)
def test_what_is_written_is_read_back(event: Event) -> None:
    read = unwrap(decode(encode(Envelopes("/mobiscud/lab/monitor", show_imsi=True).wrap(event))))
    assert read is not None
    for name in event.__dataclass_fields__:
        if name != "origin":
            assert getattr(read, name) == getattr(event, name), name


def test_what_an_older_version_did_not_write_has_its_default() -> None:
    envelope = Envelopes("/mobiscud/lab/monitor").wrap(ATTACHED)
    del envelope["data"]["pdns"]
    read = unwrap(envelope)
    assert isinstance(read, UeAttached)
    assert read.pdns == ()


def test_an_imsi_stays_inside_unless_clear() -> None:
    assert "999700000000001" not in json.dumps(Envelopes("/mobiscud/lab/monitor").wrap(ATTACHED))


def test_the_id_names_the_fact_and_not_the_observer() -> None:
    one = Envelopes("/mobiscud/lab/monitor").wrap(ATTACHED)
    other = Envelopes("/mobiscud/other/monitor", show_imsi=True).wrap(ATTACHED)
    assert one["id"] == other["id"]
    assert one["id"] != Envelopes("/mobiscud/lab/monitor").wrap(COMPLETED)["id"]


def test_sequence_counts_up_also_where_times_do_not() -> None:
    envelopes = Envelopes("/mobiscud/lab/monitor")
    numbers = [envelopes.wrap(event)["sequence"] for event in (DROPPED, COMPLETED, ATTACHED, COMPLETED, ATTACHED)]
    assert numbers == sorted(set(numbers)), "as text, too"


def test_sequence_counts_on_after_a_restart() -> None:
    before = Envelopes("/mobiscud/lab/monitor")
    numbers = [before.wrap(ATTACHED)["sequence"] for _ in range(3)]
    later = replace(COMPLETED, at=ATTACHED.at + 1_000_000)
    assert Envelopes("/mobiscud/lab/monitor").wrap(later)["sequence"] > numbers[-1]


def test_every_type_of_the_contract_has_a_class() -> None:
    assert {"enb.connected", "ue.idle", "handover.prepared", "bearer.modified", "pvm.migrated"} <= set(EVENT_TYPES)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"\xff", b'{"specversion":1}', b"[" * 100_000])
def test_what_is_no_cloudevent_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(payload)


@pytest.mark.parametrize(
    "change",
    [{"ue": None}, {"ue_ip": "45.45.0.2"}, {"bearers": [{"e_rab_id": 99_999}]}, {"enb": 3}, {"ecgi": {"plmn": {}}}],
)
def test_wrong_data_is_refused(change: dict[str, object]) -> None:
    envelope = Envelopes("/mobiscud/lab/monitor").wrap(ATTACHED)
    envelope["data"] |= change
    with pytest.raises(DecodeError):
        unwrap(envelope)


def test_a_type_from_a_later_version_is_passed_over() -> None:
    envelope = Envelopes("/mobiscud/lab/monitor").wrap(ATTACHED) | {"type": "org.mobiscud.ue.levitated"}
    assert unwrap(envelope) is None


def test_times_survive_to_the_microsecond() -> None:
    assert nanoseconds(rfc3339(1_763_000_000_000_001_999)) == 1_763_000_000_000_001_000
    with pytest.raises(ValueError, match="offset"):
        nanoseconds("2026-01-01T00:00:00")


def test_text_is_json_whatever_is_in_it() -> None:
    detail = 'a "word", 100 %s, \\ and \u2603'
    event = MonitorDesynchronised(at=1, origin=b"x", detail=detail)
    text = Envelopes('/mobiscud/50%s "lab"/monitor').text(event)
    assert text.isascii()
    envelope = json.loads(text)
    assert envelope["source"] == '/mobiscud/50%s "lab"/monitor'
    assert envelope["data"] == {"detail": detail, "ue": None, "imsi": None, "ue_ip": []}
    assert "subject" not in envelope
