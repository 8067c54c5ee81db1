"""A day's S1AP traffic of an LTE core: all procedures the monitor reads, in the mix and the sizes of real networks.

Most of it is UEs that wake up and fall idle again; handovers over X2 are common, over S1 rare; NAS is ciphered.
Encoded by pycrate, and only what pycrate can read back is kept, so that every contestant has the same work.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mobiscud.core.errors import DecodeError
from testbed import s1ap_build

_PLMNS: Final = tuple(map(bytes.fromhex, ("00f110", "02f839", "130062", "22f210")))
_CAUSES: Final = (
    ("radioNetwork", "user-inactivity"),
    ("radioNetwork", "user-inactivity"),
    ("radioNetwork", "radio-connection-with-ue-lost"),
    ("radioNetwork", "handover-desirable-for-radio-reason"),
    ("radioNetwork", "successful-handover"),
    ("radioNetwork", "x2-handover-triggered"),
    ("transport", "transport-resource-unavailable"),
    ("nas", "normal-release"),
    ("nas", "detach"),
    ("protocol", "semantic-error"),
    ("misc", "om-intervention"),
)
_BITS: Final = (8, 16, 24, 32)

Elements = dict[str, Any]


class Pdu(NamedTuple):
    """An encoded message; ``downlink``: the MME sends it."""

    name: str
    downlink: bool
    octets: bytes


def generate(seed: int, count: int) -> list[Pdu]:
    """Make ``count`` PDUs: every message a few times, all others by their weights. The same seed, the same PDUs."""
    chance = random.Random(seed)
    maker = _Maker(chance)
    messages = [message for message in _MESSAGES for _ in range(3)]
    messages += chance.choices(_MESSAGES, [message.weight for message in _MESSAGES], k=max(0, count - len(messages)))
    chance.shuffle(messages)
    pdus = []
    for message in messages[:count]:
        octets = s1ap_build.encode(message.name, **message.elements(maker))
        try:
            s1ap_build.decode(octets)
        except DecodeError:
            continue
        pdus.append(Pdu(message.name, message.downlink, octets))
    return pdus


class _Maker:
    """Makes elements, in pycrate's forms."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def likely(self, probability: float) -> bool:
        return self.chance.random() < probability

    def octets(self, low: int, high: int | None = None) -> bytes:
        return self.chance.randbytes(low if high is None else self.chance.randint(low, high))

    def mme_id(self) -> int:
        return self.chance.getrandbits(self.chance.choice(_BITS))

    def enb_id(self) -> int:
        return self.chance.getrandbits(self.chance.choice(_BITS[:3]))

    def ids(self) -> Elements:
        return {"MME_UE_S1AP_ID": self.mme_id(), "eNB_UE_S1AP_ID": self.enb_id()}

    def cause(self) -> tuple[str, str]:
        return self.chance.choice(_CAUSES)

    def nas(self, low: int = 20, high: int = 160) -> bytes:
        return b"\x27" + self.octets(low, high)

    def plmn(self) -> bytes:
        return self.chance.choice(_PLMNS)

    def tai(self) -> Elements:
        return {"pLMNidentity": self.plmn(), "tAC": self.octets(2)}

    def ecgi(self) -> Elements:
        return {"pLMNidentity": self.plmn(), "cell-ID": (self.chance.getrandbits(28), 28)}

    def place(self) -> Elements:
        return {"EUTRAN_CGI": self.ecgi(), "TAI": self.tai()}

    def s_tmsi(self) -> Elements:
        return {"mMEC": self.octets(1), "m-TMSI": self.octets(4)}

    def gummei(self) -> Elements:
        return {"pLMN-Identity": self.plmn(), "mME-Group-ID": self.octets(2), "mME-Code": self.octets(1)}

    def global_enb(self) -> Elements:
        kind, width = self.chance.choice((("macroENB-ID", 20),) * 4 + (("homeENB-ID", 28),))
        return {"pLMNidentity": self.plmn(), "eNB-ID": (kind, (self.chance.getrandbits(width), width))}

    def tunnel(self, address: str = "transportLayerAddress", teid: str = "gTP-TEID") -> Elements:
        width = self.chance.choice((32,) * 9 + (128,))
        return {address: (self.chance.getrandbits(width), width), teid: self.octets(4)}

    def rate(self) -> int:
        return self.chance.randrange(1 << self.chance.choice((16, 24, 30, 33)))

    def ambr(self) -> Elements:
        return {"uEaggregateMaximumBitRateDL": self.rate(), "uEaggregateMaximumBitRateUL": self.rate()}

    def qos(self) -> Elements:
        made: Elements = {
            "qCI": self.chance.choice((1, 5, 6, 8, 9, 9, 9, 9)),
            "allocationRetentionPriority": {
                "priorityLevel": self.chance.randint(1, 15),
                "pre-emptionCapability": "shall-not-trigger-pre-emption",
                "pre-emptionVulnerability": self.chance.choice(("pre-emptable", "not-pre-emptable")),
            },
        }
        if made["qCI"] == 1:
            directions = [f"e-RAB-{kind}Bitrate{way}" for kind in ("Maximum", "Guaranteed") for way in ("DL", "UL")]
            made["gbrQosInformation"] = {direction: self.rate() for direction in directions}
        return made

    def items(self, make: Callable[[], Elements]) -> list[Elements]:
        """One E-RAB mostly, now and then several."""
        numbers = self.chance.sample(range(5, 16), self.chance.choice((1, 1, 1, 1, 2, 2, 3)))
        return [{"e-RAB-ID": number, **make()} for number in sorted(numbers)]

    def ends(self) -> list[Elements]:
        return self.items(self.tunnel)

    def failures(self) -> list[Elements]:
        return self.items(lambda: {"cause": self.cause()})

    def security(self) -> Elements:
        algorithms = ("encryptionAlgorithms", "integrityProtectionAlgorithms")
        return {name: (self.chance.getrandbits(16), 16) for name in algorithms}

    def next_hop(self) -> Elements:
        return {
            "nextHopChainingCount": self.chance.randrange(8),
            "nextHopParameter": (self.chance.getrandbits(256), 256),
        }

    def forwarding(self) -> Elements:
        made = self.tunnel("dL-transportLayerAddress", "dL-gTP-TEID") if self.likely(0.7) else {}
        return made | (self.tunnel("uL-TransportLayerAddress", "uL-GTP-TEID") if self.likely(0.2) else {})

    def served(self) -> list[Elements]:
        return [{"servedPLMNs": [self.plmn()], "servedGroupIDs": [self.octets(2)], "servedMMECs": [self.octets(1)]}]

    def supported(self) -> list[Elements]:
        areas = range(self.chance.choice((1, 1, 2, 3)))
        return [{"tAC": self.octets(2), "broadcastPLMNs": [self.plmn()]} for _ in areas]

    def counts(self) -> Elements:
        count = {"pDCP-SN": self.chance.randrange(4096), "hFN": self.chance.randrange(1 << 20)}
        item = {"e-RAB-ID": 5, "uL-COUNTvalue": count, "dL-COUNTvalue": count}
        wrapped = ("Bearers-SubjectToStatusTransfer-Item", item)
        return {"bearers-SubjectToStatusTransferList": [{"id": 89, "criticality": "ignore", "value": wrapped}]}


# --- one function for each message: its elements ----------------------------------------------------------------------


def _ids_alone(make: _Maker) -> Elements:
    return make.ids()


def _cause(make: _Maker) -> Elements:
    return {**make.ids(), "Cause": make.cause()}


def _mme_cause(make: _Maker) -> Elements:
    return {"MME_UE_S1AP_ID": make.mme_id(), "Cause": make.cause()}


def _initial(make: _Maker) -> Elements:
    made: Elements = {"eNB_UE_S1AP_ID": make.enb_id(), "NAS_PDU": make.nas(4, 90), **make.place()}
    made["RRC_Establishment_Cause"] = make.chance.choice(("mo-Signalling", "mo-Data", "mt-Access"))
    if make.likely(0.8):
        made["S_TMSI"] = make.s_tmsi()
    elif make.likely(0.5):
        made["GUMMEI_ID"] = make.gummei()
    return made


def _downlink_nas(make: _Maker) -> Elements:
    return {**make.ids(), "NAS_PDU": make.nas()}


def _uplink_nas(make: _Maker) -> Elements:
    return {**_downlink_nas(make), **make.place()}


def _context_request(make: _Maker) -> Elements:
    def item() -> Elements:
        nas = {"nAS-PDU": make.nas(30, 200)} if make.likely(0.3) else {}
        return {"e-RABlevelQoSParameters": make.qos(), **make.tunnel(), **nas}

    made = {**make.ids(), "uEaggregateMaximumBitrate": make.ambr(), "E_RABToBeSetupListCtxtSUReq": make.items(item)}
    made |= {"UESecurityCapabilities": make.security(), "SecurityKey": (make.chance.getrandbits(256), 256)}
    if make.likely(0.6):
        made["UERadioCapability"] = make.octets(60, 900)
    return made


def _context_response(make: _Maker) -> Elements:
    return {**make.ids(), "E_RABSetupListCtxtSURes": make.ends()}


def _release_command(make: _Maker) -> Elements:
    pair = {"mME-UE-S1AP-ID": make.mme_id(), "eNB-UE-S1AP-ID": make.enb_id()}
    return {"UE_S1AP_IDs": ("uE-S1AP-ID-pair", pair), "Cause": make.cause()}


def _paging(make: _Maker) -> Elements:
    return {
        "UEIdentityIndexValue": (make.chance.getrandbits(10), 10),
        "UEPagingID": ("s-TMSI", make.s_tmsi()),
        "CNDomain": "ps",
        "TAIList": [{"tAI": make.tai()} for _ in range(make.chance.randint(1, 6))],
    }


def _path_switch(make: _Maker) -> Elements:
    made = {"eNB_UE_S1AP_ID": make.enb_id(), "E_RABToBeSwitchedDLList": make.ends()}
    return {**made, "SourceMME_UE_S1AP_ID": make.mme_id(), **make.place(), "UESecurityCapabilities": make.security()}


def _path_switch_done(make: _Maker) -> Elements:
    made = {**make.ids(), "SecurityContext": make.next_hop()}
    if make.likely(0.4):
        made["E_RABToBeSwitchedULList"] = make.ends()
    return made


def _required(make: _Maker) -> Elements:
    target = {"global-ENB-ID": make.global_enb(), "selected-TAI": make.tai()}
    made = {**make.ids(), "HandoverType": "intralte", "Cause": make.cause(), "TargetID": ("targeteNB-ID", target)}
    return {**made, "Source_ToTarget_TransparentContainer": make.octets(90, 1300)}


def _request(make: _Maker) -> Elements:
    made = {"MME_UE_S1AP_ID": make.mme_id(), "HandoverType": "intralte", "Cause": make.cause()}
    bearers = make.items(lambda: {**make.tunnel(), "e-RABlevelQosParameters": make.qos()})
    made |= {"uEaggregateMaximumBitrate": make.ambr(), "E_RABToBeSetupListHOReq": bearers}
    made |= {"Source_ToTarget_TransparentContainer": make.octets(90, 1300), "UESecurityCapabilities": make.security()}
    return {**made, "SecurityContext": make.next_hop()}


def _request_acknowledge(make: _Maker) -> Elements:
    bearers = make.items(lambda: {**make.tunnel(), **make.forwarding()})
    return {**make.ids(), "E_RABAdmittedList": bearers, "Target_ToSource_TransparentContainer": make.octets(40, 300)}


def _command(make: _Maker) -> Elements:
    made = {**make.ids(), "HandoverType": "intralte", "Target_ToSource_TransparentContainer": make.octets(40, 300)}
    if make.likely(0.7):
        made["E_RABSubjecttoDataForwardingList"] = make.items(make.forwarding)
    return made


def _notify(make: _Maker) -> Elements:
    return {**make.ids(), **make.place()}


def _status(make: _Maker) -> Elements:
    return {**make.ids(), "eNB_StatusTransfer_TransparentContainer": make.counts()}


def _bearer_request(make: _Maker) -> Elements:
    def item() -> Elements:
        return {"e-RABlevelQoSParameters": make.qos(), **make.tunnel(), "nAS-PDU": make.nas(30, 200)}

    return {**make.ids(), "E_RABToBeSetupListBearerSUReq": make.items(item)}


def _bearer_response(make: _Maker) -> Elements:
    return {**make.ids(), "E_RABSetupListBearerSURes": make.ends()}


def _modify_request(make: _Maker) -> Elements:
    bearers = make.items(lambda: {"e-RABLevelQoSParameters": make.qos(), "nAS-PDU": make.nas()})
    return {**make.ids(), "E_RABToBeModifiedListBearerModReq": bearers}


def _modify_response(make: _Maker) -> Elements:
    return {**make.ids(), "E_RABModifyListBearerModRes": make.items(dict)}


def _bearer_release(make: _Maker) -> Elements:
    return {**make.ids(), "E_RABToBeReleasedList": make.failures(), "NAS_PDU": make.nas()}


def _bearer_released(make: _Maker) -> Elements:
    return {**make.ids(), "E_RABReleaseListBearerRelComp": make.items(dict)}


def _release_indication(make: _Maker) -> Elements:
    return {**make.ids(), "E_RABReleasedList": make.failures()}


def _setup(make: _Maker) -> Elements:
    made = {"Global_ENB_ID": make.global_enb(), "eNBname": f"enb-{make.chance.randrange(10**6):06}"}
    return {**made, "SupportedTAs": make.supported(), "DefaultPagingDRX": "v128"}


def _setup_response(make: _Maker) -> Elements:
    return {"MMEname": "mme1.example", "ServedGUMMEIs": make.served(), "RelativeMMECapacity": 255}


def _cause_alone(make: _Maker) -> Elements:
    return {"Cause": make.cause()}


def _enb_update(make: _Maker) -> Elements:
    return {"SupportedTAs": make.supported()}


def _mme_update(make: _Maker) -> Elements:
    return {"ServedGUMMEIs": make.served()}


def _nothing(make: _Maker) -> Elements:
    return {}


def _reset(make: _Maker) -> Elements:
    if make.likely(0.3):
        return {"Cause": make.cause(), "ResetType": ("s1-Interface", "reset-all")}
    which = {"mME-UE-S1AP-ID": make.mme_id(), "eNB-UE-S1AP-ID": make.enb_id()}
    element = {"id": 91, "criticality": "reject", "value": ("UE-associatedLogicalS1-ConnectionItem", which)}
    return {"Cause": make.cause(), "ResetType": ("partOfS1-Interface", [element] * make.chance.randint(1, 8))}


def _capability(make: _Maker) -> Elements:
    return {**make.ids(), "UERadioCapability": make.octets(60, 1300)}


class _Message(NamedTuple):
    name: str
    downlink: bool
    weight: int
    elements: Callable[[_Maker], Elements]


_UP, _DOWN = False, True

_MESSAGES: Final = (
    _Message("InitialUEMessage", _UP, 120, _initial),
    _Message("InitialContextSetupRequest", _DOWN, 110, _context_request),
    _Message("InitialContextSetupResponse", _UP, 106, _context_response),
    _Message("InitialContextSetupFailure", _UP, 4, _cause),
    _Message("UEContextReleaseRequest", _UP, 90, _cause),
    _Message("UEContextReleaseCommand", _DOWN, 110, _release_command),
    _Message("UEContextReleaseComplete", _UP, 110, _ids_alone),
    _Message("DownlinkNASTransport", _DOWN, 50, _downlink_nas),
    _Message("UplinkNASTransport", _UP, 60, _uplink_nas),
    _Message("Paging", _DOWN, 60, _paging),
    _Message("PathSwitchRequest", _UP, 60, _path_switch),
    _Message("PathSwitchRequestAcknowledge", _DOWN, 58, _path_switch_done),
    _Message("PathSwitchRequestFailure", _DOWN, 2, _cause),
    _Message("HandoverRequired", _UP, 12, _required),
    _Message("HandoverRequest", _DOWN, 12, _request),
    _Message("HandoverRequestAcknowledge", _UP, 11, _request_acknowledge),
    _Message("HandoverFailure", _UP, 2, _mme_cause),
    _Message("HandoverCommand", _DOWN, 11, _command),
    _Message("HandoverPreparationFailure", _DOWN, 2, _cause),
    _Message("HandoverNotify", _UP, 11, _notify),
    _Message("HandoverCancel", _UP, 3, _cause),
    _Message("HandoverCancelAcknowledge", _DOWN, 3, _ids_alone),
    _Message("ENBStatusTransfer", _UP, 8, _status),
    _Message("MMEStatusTransfer", _DOWN, 8, _status),
    _Message("E-RABSetupRequest", _DOWN, 10, _bearer_request),
    _Message("E-RABSetupResponse", _UP, 10, _bearer_response),
    _Message("E-RABModifyRequest", _DOWN, 5, _modify_request),
    _Message("E-RABModifyResponse", _UP, 5, _modify_response),
    _Message("E-RABReleaseCommand", _DOWN, 6, _bearer_release),
    _Message("E-RABReleaseResponse", _UP, 6, _bearer_released),
    _Message("E-RABReleaseIndication", _UP, 2, _release_indication),
    _Message("S1SetupRequest", _UP, 2, _setup),
    _Message("S1SetupResponse", _DOWN, 2, _setup_response),
    _Message("S1SetupFailure", _DOWN, 1, _cause_alone),
    _Message("ENBConfigurationUpdate", _UP, 1, _enb_update),
    _Message("ENBConfigurationUpdateAcknowledge", _DOWN, 1, _nothing),
    _Message("MMEConfigurationUpdate", _DOWN, 1, _mme_update),
    _Message("Reset", _DOWN, 2, _reset),
    _Message("ResetAcknowledge", _UP, 2, _nothing),
    _Message("UECapabilityInfoIndication", _UP, 20, _capability),
)
