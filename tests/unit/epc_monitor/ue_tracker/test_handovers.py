"""Handovers over the MME and between eNodeBs: done, refused, taken back, overtaken, seen in part."""

from __future__ import annotations

from typing import Any

import pytest

from mobiscud.core.events import (
    Event,
    HandoverCancelled,
    HandoverCompleted,
    HandoverEvent,
    HandoverExecuting,
    HandoverPrepared,
    HandoverPreparing,
    HandoverRejected,
)
from mobiscud.core.ue import HandoverKind
from testbed.scripted_epc import HANDED_OVER, NORMAL, PLMN, QOS, SGW_U, Enb, Nas, Network, end

IMSI, OTHER = "999700000000001", "999700000000002"
WHY = ("radioNetwork", "time-critical-handover")
FAILED = ("radioNetwork", "ho-failure-in-target-EPC-eNB-or-target-system")


def types(events: list[Event]) -> list[str]:
    return [event.TYPE for event in events]


def ids(mme_id: int, enb_id: int) -> dict[str, int]:
    return {"MME_UE_S1AP_ID": mme_id, "eNB_UE_S1AP_ID": enb_id}


def required(source: Enb, target: Enb, mme_id: int = 1, enb_id: int = 1) -> list[Event]:
    enb = {"pLMNidentity": PLMN, "eNB-ID": ("macroENB-ID", (target.number, 20))}
    tai = {"pLMNidentity": PLMN, "tAC": b"\0\1"}
    return source.says(
        "HandoverRequired",
        HandoverType="intralte",
        Cause=WHY,
        TargetID=("targeteNB-ID", {"global-ENB-ID": enb, "selected-TAI": tai}),
        Source_ToTarget_TransparentContainer=bytes(40),
        **ids(mme_id, enb_id),
    )


def request(target: Enb, mme_id: int = 2, uplink: int = 0x100) -> list[Event]:
    item = {"e-RAB-ID": 5, **end(SGW_U, uplink), "e-RABlevelQosParameters": QOS}
    return target.hears(
        "HandoverRequest",
        MME_UE_S1AP_ID=mme_id,
        HandoverType="intralte",
        Cause=WHY,
        E_RABToBeSetupListHOReq=[item],
        Source_ToTarget_TransparentContainer=bytes(40),
    )


def forwarding(address: str, teid: int) -> dict[str, Any]:
    made = end(address, teid)
    return {"dL-transportLayerAddress": made["transportLayerAddress"], "dL-gTP-TEID": made["gTP-TEID"]}


def acknowledge(target: Enb, mme_id: int = 2, enb_id: int = 7, downlink: int = 0x2222) -> list[Event]:
    item = {"e-RAB-ID": 5, **end(target.address, downlink), **forwarding(target.address, 0x3333)}
    return target.says(
        "HandoverRequestAcknowledge",
        E_RABAdmittedList=[item],
        Target_ToSource_TransparentContainer=bytes(40),
        **ids(mme_id, enb_id),
    )


def command(source: Enb, to: dict[str, Any] | None, mme_id: int = 1, enb_id: int = 1) -> list[Event]:
    elements: dict[str, Any] = {} if to is None else {"E_RABSubjecttoDataForwardingList": [{"e-RAB-ID": 5, **to}]}
    return source.hears(
        "HandoverCommand",
        HandoverType="intralte",
        Target_ToSource_TransparentContainer=bytes(40),
        **ids(mme_id, enb_id),
        **elements,
    )


def notify(target: Enb, mme_id: int = 2, enb_id: int = 7) -> list[Event]:
    return target.says("HandoverNotify", **ids(mme_id, enb_id), **target.where)


def path_switch(target: Enb, mme_id: int = 1, enb_id: int = 7, downlink: int = 0x2222) -> list[Event]:
    return target.says(
        "PathSwitchRequest",
        eNB_UE_S1AP_ID=enb_id,
        SourceMME_UE_S1AP_ID=mme_id,
        E_RABToBeSwitchedDLList=[{"e-RAB-ID": 5, **end(target.address, downlink)}],
        **target.where,
    )


def switched(target: Enb, mme_id: int = 1, enb_id: int = 7, **elements: Any) -> list[Event]:
    security = {"nextHopChainingCount": 1, "nextHopParameter": (0, 256)}
    return target.hears("PathSwitchRequestAcknowledge", SecurityContext=security, **ids(mme_id, enb_id), **elements)


class Cells:
    """Two eNodeBs, and a UE attached at the first with uplink 0x100."""

    def __init__(self, network: Network) -> None:
        self.source, self.target = network.enb(11), network.enb(12)
        network.attach(self.source, IMSI)


@pytest.fixture
def cells(network: Network) -> Cells:
    return Cells(network)


def test_s1_handover(cells: Cells) -> None:
    source, target = cells.source, cells.target
    [preparing] = required(source, target)
    assert isinstance(preparing, HandoverPreparing)
    assert preparing.kind is HandoverKind.S1
    assert preparing.cause is not None
    assert preparing.cause.name == "time-critical-handover"
    assert preparing.source.ecgi is not None
    assert preparing.source.ecgi.cell_id == source.cell
    assert preparing.target.enb is not None
    assert (preparing.target.enb.enb_id, preparing.target.enb.address) == (12, target.address)
    assert preparing.target.ecgi is None

    assert request(target) == []
    [prepared] = acknowledge(target)
    assert isinstance(prepared, HandoverPrepared)
    assert prepared.imsi == IMSI
    assert prepared.cause is None
    [bearer] = prepared.bearers
    assert bearer.uplink is not None
    assert bearer.downlink is not None
    assert (bearer.qci, bearer.uplink.teid, bearer.downlink.teid) == (9, 0x100, 0x2222)

    [executing] = command(source, forwarding(target.address, 0x3333))
    assert isinstance(executing, HandoverExecuting)
    assert executing.bearers == prepared.bearers
    assert executing.forwarding.kind == "direct"

    [completed] = notify(target)
    assert isinstance(completed, HandoverCompleted)
    assert completed.source == preparing.source
    assert completed.ecgi is not None
    assert completed.ecgi.cell_id == target.cell
    assert completed.target.ecgi == completed.ecgi

    assert source.release(1, 1, HANDED_OVER) == []
    assert types(target.release(2, 7)) == ["ue.idle"]


@pytest.mark.parametrize(("to", "kind"), [(None, "none"), (forwarding("10.1.0.6", 0x4444), "indirect"), ({}, "none")])
def test_forwarding(cells: Cells, to: dict[str, Any] | None, kind: str) -> None:
    required(cells.source, cells.target)
    request(cells.target)
    acknowledge(cells.target)
    [executing] = command(cells.source, to)
    assert isinstance(executing, HandoverExecuting)
    assert executing.forwarding.kind == kind


def test_a_refused_handover(cells: Cells) -> None:
    source, target = cells.source, cells.target
    required(source, target)
    request(target)
    assert target.says("HandoverFailure", MME_UE_S1AP_ID=2, Cause=FAILED) == []
    [rejected] = source.hears("HandoverPreparationFailure", Cause=FAILED, **ids(1, 1))
    assert isinstance(rejected, HandoverRejected)
    assert rejected.cause is not None
    assert rejected.cause.value == 6
    target.hears("UEContextReleaseCommand", UE_S1AP_IDs=("mME-UE-S1AP-ID", 2), Cause=FAILED)
    assert target.released(2, 4711) == []
    assert types(source.release(1, 1)) == ["ue.idle"]


def test_a_cancelled_handover(cells: Cells) -> None:
    source, target = cells.source, cells.target
    required(source, target)
    request(target)
    acknowledge(target)
    command(source, None)
    [cancelled] = source.says("HandoverCancel", Cause=WHY, **ids(1, 1))
    assert isinstance(cancelled, HandoverCancelled)
    assert target.release(2, 7, ("radioNetwork", "handover-cancelled")) == []
    assert source.hears("HandoverCancelAcknowledge", **ids(1, 1)) == []
    assert types(required(source, target)) == ["handover.preparing"]


def test_a_command_that_crosses_the_cancellation_is_void(cells: Cells) -> None:
    source, target = cells.source, cells.target
    required(source, target)
    request(target)
    acknowledge(target)
    assert types(source.says("HandoverCancel", Cause=WHY, **ids(1, 1))) == ["handover.cancelled"]
    assert command(source, None) == []
    assert source.hears("HandoverCancelAcknowledge", **ids(1, 1)) == []
    assert types(source.release(1, 1)) == ["ue.idle"]


def test_a_refusal_that_crosses_the_cancellation_is_void(cells: Cells) -> None:
    required(cells.source, cells.target)
    assert types(cells.source.says("HandoverCancel", Cause=WHY, **ids(1, 1))) == ["handover.cancelled"]
    assert cells.source.hears("HandoverPreparationFailure", Cause=FAILED, **ids(1, 1)) == []
    assert cells.source.hears("HandoverCancelAcknowledge", **ids(1, 1)) == []


def test_x2_handover(cells: Cells) -> None:
    target = cells.target
    [prepared] = path_switch(target)
    assert isinstance(prepared, HandoverPrepared)
    assert prepared.kind is HandoverKind.X2
    assert prepared.imsi == IMSI
    assert prepared.source.enb is not None
    assert prepared.source.enb.enb_id == 11
    [bearer] = prepared.bearers
    assert bearer.uplink is not None
    assert bearer.downlink is not None
    assert (bearer.qci, bearer.uplink.teid, bearer.downlink.teid) == (9, 0x100, 0x2222)
    [completed] = switched(target)
    assert isinstance(completed, HandoverCompleted)
    assert completed.bearers == prepared.bearers
    assert completed.ecgi is not None
    assert completed.ecgi.cell_id == target.cell
    assert types(target.release(1, 7)) == ["ue.idle"]


def test_x2_with_new_uplinks_and_a_new_id(cells: Cells, network: Network) -> None:
    path_switch(cells.target)
    uplinks = [{"e-RAB-ID": 5, **end(SGW_U, 0x555)}]
    [completed] = switched(cells.target, E_RABToBeSwitchedULList=uplinks, MME_UE_S1AP_ID_2=77)
    assert isinstance(completed, HandoverCompleted)
    [bearer] = completed.bearers
    assert bearer.uplink is not None
    assert bearer.uplink.teid == 0x555
    third = network.enb(13)
    [prepared] = path_switch(third, mme_id=77)
    assert isinstance(prepared, HandoverPrepared)
    assert prepared.imsi == IMSI


def test_x2_refused(cells: Cells) -> None:
    path_switch(cells.target)
    [rejected] = cells.target.hears("PathSwitchRequestFailure", Cause=WHY, **ids(1, 7))
    assert isinstance(rejected, HandoverRejected)
    assert rejected.kind is HandoverKind.X2
    assert types(cells.source.release(1, 1)) == ["ue.idle"]


def test_ping_pong(cells: Cells) -> None:
    source, target = cells.source, cells.target
    path_switch(target)
    switched(target)
    [prepared] = path_switch(source, enb_id=8)
    assert isinstance(prepared, HandoverPrepared)
    assert prepared.source.enb is not None
    assert prepared.source.enb.enb_id == 12
    assert types(switched(source, enb_id=8)) == ["handover.completed"]
    assert types(required(source, target, 1, 8)) == ["handover.preparing"]


def test_without_s11_the_ue_is_known_by_the_tunnels_of_its_context(network: Network) -> None:
    source, target = network.enb(11), network.enb(12)
    source.initial(1, Nas.SERVICE_REQUEST, 1)
    [connected] = source.context(1, 1, 0x100)
    required(source, target)
    request(target)
    [prepared] = acknowledge(target)
    assert isinstance(connected, HandoverEvent) is False
    assert isinstance(prepared, HandoverPrepared)
    assert prepared.ue == connected.ue  # type: ignore[attr-defined]


def test_a_target_whose_beginning_was_not_seen(network: Network) -> None:
    target = network.enb(12, setup=False)
    [completed] = notify(target)
    assert isinstance(completed, HandoverCompleted)
    assert completed.source.enb is None
    assert completed.bearers == ()
    assert types(target.release(2, 7)) == ["ue.idle"]


def test_a_handover_request_without_its_required(cells: Cells) -> None:
    request(cells.target)
    [prepared] = acknowledge(cells.target)
    assert isinstance(prepared, HandoverPrepared)
    assert prepared.source.enb is not None
    assert prepared.source.enb.enb_id == 11
    assert types(notify(cells.target)) == ["handover.completed"]


def test_two_ues_at_once(network: Network) -> None:
    source, target = network.enb(11), network.enb(12)
    network.attach(source, IMSI, (1, 1), 0x100)
    network.attach(source, OTHER, (2, 2), 0x200, s_tmsi=0xC002)
    required(source, target, 1, 1)
    required(source, target, 2, 2)
    request(target, 3, 0x200)
    request(target, 4, 0x100)
    [first] = acknowledge(target, 3, 7)
    [second] = acknowledge(target, 4, 8)
    assert isinstance(first, HandoverEvent)
    assert isinstance(second, HandoverEvent)
    assert (first.imsi, second.imsi) == (OTHER, IMSI)


def test_a_source_that_is_released_by_the_radio_is_idle(cells: Cells) -> None:
    required(cells.source, cells.target)
    assert types(cells.source.release(1, 1, NORMAL)) == ["ue.idle"]
