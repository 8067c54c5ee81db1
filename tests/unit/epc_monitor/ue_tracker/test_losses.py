"""What follows when something was not seen: no fact is invented, what is impossible is told, and the UE heals."""

from __future__ import annotations

from typing import Any

import pytest

from mobiscud.core.events import Event, HandoverCompleted, HandoverPreparing, MonitorDesynchronised, UeEvent, UeIdle
from testbed.scripted_epc import DETACH, HANDED_OVER, IDLE, PLMN, QOS, SGW_U, Enb, Nas, Network, end

IMSI = "999700000000001"
WHY = ("radioNetwork", "time-critical-handover")


def types(events: list[Event]) -> list[str]:
    return [event.TYPE for event in events]


def ids(mme_id: int, enb_id: int) -> dict[str, int]:
    return {"MME_UE_S1AP_ID": mme_id, "eNB_UE_S1AP_ID": enb_id}


def uplink_nas(enb: Enb, mme_id: int, enb_id: int) -> list[Event]:
    return enb.says("UplinkNASTransport", NAS_PDU=Nas.unreadable(), **ids(mme_id, enb_id), **enb.where)


class Cells:
    """Two eNodeBs, a UE attached at the first, and the messages of its handover to the second."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.source, self.target = network.enb(11), network.enb(12)
        network.attach(self.source, IMSI)

    def required(self, source: Enb, target: Enb, mme_id: int = 1, enb_id: int = 1) -> list[Event]:
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

    def request(self, target: Enb, mme_id: int, uplink: int = 0x100) -> list[Event]:
        return target.hears(
            "HandoverRequest",
            MME_UE_S1AP_ID=mme_id,
            HandoverType="intralte",
            Cause=WHY,
            E_RABToBeSetupListHOReq=[{"e-RAB-ID": 5, **end(SGW_U, uplink), "e-RABlevelQosParameters": QOS}],
            Source_ToTarget_TransparentContainer=bytes(40),
        )

    def acknowledge(self, target: Enb, mme_id: int, enb_id: int) -> list[Event]:
        return target.says(
            "HandoverRequestAcknowledge",
            E_RABAdmittedList=[{"e-RAB-ID": 5, **end(target.address, 0x2222)}],
            Target_ToSource_TransparentContainer=bytes(40),
            **ids(mme_id, enb_id),
        )

    def command(self, source: Enb, mme_id: int, enb_id: int) -> list[Event]:
        return source.hears(
            "HandoverCommand",
            HandoverType="intralte",
            Target_ToSource_TransparentContainer=bytes(40),
            **ids(mme_id, enb_id),
        )

    def notify(self, target: Enb, mme_id: int, enb_id: int) -> list[Event]:
        return target.says("HandoverNotify", **ids(mme_id, enb_id), **target.where)

    def executed(self, mme_id: int = 2) -> None:
        """Everything up to the Handover Command; the target's leg is ``mme_id``, 7."""
        self.required(self.source, self.target)
        self.request(self.target, mme_id)
        self.acknowledge(self.target, mme_id, 7)
        assert types(self.command(self.source, 1, 1)) == ["handover.executing"]

    def path_switch(self) -> list[Event]:
        return self.target.says(
            "PathSwitchRequest",
            eNB_UE_S1AP_ID=7,
            SourceMME_UE_S1AP_ID=1,
            E_RABToBeSwitchedDLList=[{"e-RAB-ID": 5, **end(self.target.address, 0x2222)}],
            **self.target.where,
        )


@pytest.fixture
def cells(network: Network) -> Cells:
    return Cells(network)


def test_a_source_released_after_a_handover_whose_end_was_not_seen_is_not_idle(cells: Cells) -> None:
    cells.executed()
    [told] = cells.source.release(1, 1, HANDED_OVER)
    assert isinstance(told, MonitorDesynchronised)
    assert told.imsi == IMSI
    [idle] = cells.target.release(2, 7)
    assert isinstance(idle, UeIdle)
    assert idle.enb is not None
    assert idle.enb.enb_id == 12


def test_a_source_released_after_a_handover_of_which_nothing_was_seen_is_not_idle(cells: Cells) -> None:
    assert types(cells.source.release(1, 1, HANDED_OVER)) == ["monitor.desynchronised"]
    cells.target.initial(9, Nas.SERVICE_REQUEST, 0xC001)
    assert types(cells.target.context(9, 9, 0x100)) == ["ue.connected"]


def test_a_ue_that_speaks_at_the_target_has_arrived(cells: Cells) -> None:
    cells.executed()
    assert types(uplink_nas(cells.target, 2, 7)) == ["monitor.desynchronised"]
    assert uplink_nas(cells.target, 2, 7) == []
    assert cells.source.release(1, 1, HANDED_OVER) == []
    [preparing] = cells.required(cells.target, cells.source, 2, 7)
    assert isinstance(preparing, HandoverPreparing)
    assert (preparing.imsi, preparing.source.enb and preparing.source.enb.enb_id) == (IMSI, 12)


def test_a_path_switch_whose_answer_was_not_seen(cells: Cells) -> None:
    assert types(cells.path_switch()) == ["handover.prepared"]
    events = cells.target.release(1, 7)
    assert types(events) == ["monitor.desynchronised", "ue.idle"]
    assert isinstance(events[1], UeIdle)
    assert events[1].enb is not None
    assert (events[1].imsi, events[1].enb.enb_id) == (IMSI, 12)


# --- an MME that keeps its id for both legs (TS 36.401 6.2.1: it names the UE) ----------------------------------------


def test_one_mme_id_for_both_legs(cells: Cells) -> None:
    cells.executed(mme_id=1)
    [completed] = cells.notify(cells.target, 1, 7)
    assert isinstance(completed, HandoverCompleted)
    assert completed.source.enb is not None
    assert completed.source.enb.enb_id == 11
    assert cells.source.release(1, 1, HANDED_OVER) == []
    assert types(cells.target.release(1, 7)) == ["ue.idle"]


def test_one_mme_id_and_a_cancelled_handover(cells: Cells) -> None:
    cells.executed(mme_id=1)
    assert types(cells.source.says("HandoverCancel", Cause=WHY, **ids(1, 1))) == ["handover.cancelled"]
    assert cells.target.release(1, 7, ("radioNetwork", "handover-cancelled")) == []
    assert cells.source.hears("HandoverCancelAcknowledge", **ids(1, 1)) == []
    assert types(cells.path_switch()) == ["handover.prepared"]


def test_one_mme_id_tells_who_it_is_when_the_tunnels_are_new(cells: Cells) -> None:
    """The S-GW changes with the handover."""
    cells.required(cells.source, cells.target)
    cells.request(cells.target, 1, uplink=0x999)
    [prepared] = cells.acknowledge(cells.target, 1, 7)
    assert isinstance(prepared, UeEvent)
    assert prepared.imsi == IMSI


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cause", ["unknown-mme-ue-s1ap-id", "unknown-enb-ue-s1ap-id", "unknown-pair-ue-s1ap-id"], ids=lambda name: name
)
def test_a_connection_that_one_end_does_not_know_is_over(cells: Cells, cause: str) -> None:
    """TS 36.413 10.6."""
    [idle] = cells.source.hears("ErrorIndication", Cause=("radioNetwork", cause), **ids(1, 1))
    assert isinstance(idle, UeIdle)
    assert idle.cause is not None
    assert idle.cause.name == cause
    assert cells.source.released(1, 1) == []


def test_other_errors_end_nothing(cells: Cells) -> None:
    error: dict[str, Any] = {"Cause": ("protocol", "semantic-error")}
    assert cells.source.says("ErrorIndication", **error, **ids(1, 1)) == []
    assert cells.source.hears("ErrorIndication", **error) == []
    assert cells.source.hears("ErrorIndication", Cause=("radioNetwork", "unknown-mme-ue-s1ap-id"), **ids(1, 5)) == []
    assert types(cells.source.release(1, 1, IDLE)) == ["ue.idle"]


def test_a_context_setup_that_failed_connects_nobody(cells: Cells) -> None:
    enb = cells.target
    enb.initial(9, Nas.SERVICE_REQUEST, 0xC001)
    enb.context_request(9, 9, 0x100)
    failure = ("radioNetwork", "failure-in-radio-interface-procedure")
    assert enb.says("InitialContextSetupFailure", Cause=failure, **ids(9, 9)) == []
    assert types(enb.context(9, 9, 0x100)) == ["ue.connected"]


# --- circuit-switched detach ------------------------------------------------------------------------------------------


def detach(kind: int) -> bytes:
    return bytes((0x07, 0x45, kind, 11)) + b"\xf6" + PLMN + b"\0\2\1" + (0xC001).to_bytes(4, "big")


def test_a_ue_that_leaves_only_circuit_switched_services_stays(cells: Cells) -> None:
    cells.source.says("UplinkNASTransport", NAS_PDU=detach(2), **ids(1, 1), **cells.source.where)
    assert cells.source.hears("DownlinkNASTransport", NAS_PDU=Nas.DETACH_ACCEPT, **ids(1, 1)) == []
    cells.source.hears("DownlinkNASTransport", NAS_PDU=b"\x07\x45\x03", **ids(1, 1))
    accept = cells.source.says("UplinkNASTransport", NAS_PDU=Nas.DETACH_ACCEPT, **ids(1, 1), **cells.source.where)
    assert accept == []
    assert types(cells.source.release(1, 1)) == ["ue.idle"]


@pytest.mark.parametrize("kind", [1, 3])
def test_a_ue_that_leaves_altogether(cells: Cells, kind: int) -> None:
    cells.source.says("UplinkNASTransport", NAS_PDU=detach(2), **ids(1, 1), **cells.source.where)
    cells.source.says("UplinkNASTransport", NAS_PDU=detach(kind), **ids(1, 1), **cells.source.where)
    events = cells.source.hears("DownlinkNASTransport", NAS_PDU=Nas.DETACH_ACCEPT, **ids(1, 1))
    assert types(events) == ["ue.detached"]
    assert cells.source.release(1, 1, DETACH) == []
