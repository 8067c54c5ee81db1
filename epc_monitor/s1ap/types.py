"""Names of S1AP messages and causes, and the raw forms in which the decoder hands on what it has read.

The decoder keeps octets as they are on the wire, since most of them are never looked at again; ``epc_monitor.values``
turns those that are into the types of the core.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from mobiscud.core.ue import Cause

INITIATING, SUCCESSFUL, UNSUCCESSFUL = 0x000, 0x100, 0x200


class MessageType(IntEnum):
    """Procedure code (TS 36.413 9.3.7), and in the second octet which of the procedure's messages it is."""

    HANDOVER_REQUIRED = 0
    HANDOVER_COMMAND = SUCCESSFUL | 0
    HANDOVER_PREPARATION_FAILURE = UNSUCCESSFUL | 0
    HANDOVER_REQUEST = 1
    HANDOVER_REQUEST_ACKNOWLEDGE = SUCCESSFUL | 1
    HANDOVER_FAILURE = UNSUCCESSFUL | 1
    HANDOVER_NOTIFY = 2
    PATH_SWITCH_REQUEST = 3
    PATH_SWITCH_REQUEST_ACKNOWLEDGE = SUCCESSFUL | 3
    PATH_SWITCH_REQUEST_FAILURE = UNSUCCESSFUL | 3
    HANDOVER_CANCEL = 4
    HANDOVER_CANCEL_ACKNOWLEDGE = SUCCESSFUL | 4
    E_RAB_SETUP_REQUEST = 5
    E_RAB_SETUP_RESPONSE = SUCCESSFUL | 5
    E_RAB_MODIFY_REQUEST = 6
    E_RAB_MODIFY_RESPONSE = SUCCESSFUL | 6
    E_RAB_RELEASE_COMMAND = 7
    E_RAB_RELEASE_RESPONSE = SUCCESSFUL | 7
    E_RAB_RELEASE_INDICATION = 8
    INITIAL_CONTEXT_SETUP_REQUEST = 9
    INITIAL_CONTEXT_SETUP_RESPONSE = SUCCESSFUL | 9
    INITIAL_CONTEXT_SETUP_FAILURE = UNSUCCESSFUL | 9
    PAGING = 10
    DOWNLINK_NAS_TRANSPORT = 11
    INITIAL_UE_MESSAGE = 12
    UPLINK_NAS_TRANSPORT = 13
    RESET = 14
    RESET_ACKNOWLEDGE = SUCCESSFUL | 14
    ERROR_INDICATION = 15
    NAS_NON_DELIVERY_INDICATION = 16
    S1_SETUP_REQUEST = 17
    S1_SETUP_RESPONSE = SUCCESSFUL | 17
    S1_SETUP_FAILURE = UNSUCCESSFUL | 17
    UE_CONTEXT_RELEASE_REQUEST = 18
    UE_CONTEXT_MODIFICATION_REQUEST = 21
    UE_CONTEXT_MODIFICATION_RESPONSE = SUCCESSFUL | 21
    UE_CONTEXT_MODIFICATION_FAILURE = UNSUCCESSFUL | 21
    UE_CAPABILITY_INFO_INDICATION = 22
    UE_CONTEXT_RELEASE_COMMAND = 23
    UE_CONTEXT_RELEASE_COMPLETE = SUCCESSFUL | 23
    ENB_STATUS_TRANSFER = 24
    MME_STATUS_TRANSFER = 25
    ENB_CONFIGURATION_UPDATE = 29
    ENB_CONFIGURATION_UPDATE_ACKNOWLEDGE = SUCCESSFUL | 29
    ENB_CONFIGURATION_UPDATE_FAILURE = UNSUCCESSFUL | 29
    MME_CONFIGURATION_UPDATE = 30
    MME_CONFIGURATION_UPDATE_ACKNOWLEDGE = SUCCESSFUL | 30
    MME_CONFIGURATION_UPDATE_FAILURE = UNSUCCESSFUL | 30
    E_RAB_MODIFICATION_INDICATION = 50
    E_RAB_MODIFICATION_CONFIRM = SUCCESSFUL | 50


class Tunnel(NamedTuple):
    """An F-TEID as encoded: 4, 16, or 4 + 16 octets of address (TS 36.414 5.3), and the TEID."""

    address: bytes
    teid: int


class GlobalEnbId(NamedTuple):
    """Global eNB ID (TS 36.413 9.2.1.37). ``bits``: 20 macro, 28 home, 18 short macro, 21 long macro."""

    plmn: bytes
    bits: int
    value: int


class TargetEnb(NamedTuple):
    """The eNodeB to which a UE is to be handed over; ``tai`` is the selected TAI, 5 octets."""

    enb: GlobalEnbId
    tai: bytes


class ConnectionIds(NamedTuple):
    """One UE-associated logical S1-connection of a Reset."""

    mme_ue_s1ap_id: int | None
    enb_ue_s1ap_id: int | None


class ServedGummeis(NamedTuple):
    """One entry of Served GUMMEIs (TS 36.413 9.1.8.5): every combination is served. Octets of PLMNs, groups, codes."""

    plmns: tuple[bytes, ...]
    group_ids: tuple[int, ...]
    codes: tuple[int, ...]


CAUSE_GROUPS: Final = ("radio_network", "transport", "nas", "protocol", "misc")

CAUSE_ROOTS: Final = (36, 2, 4, 7, 6)
"""How many values of each group need no extension."""

_CAUSE_NAMES: Final = (
    "unspecified tx2relocoverall-expiry successful-handover release-due-to-eutran-generated-reason handover-cancelled "
    "partial-handover ho-failure-in-target-EPC-eNB-or-target-system ho-target-not-allowed tS1relocoverall-expiry "
    "tS1relocprep-expiry cell-not-available unknown-targetID no-radio-resources-available-in-target-cell "
    "unknown-mme-ue-s1ap-id unknown-enb-ue-s1ap-id unknown-pair-ue-s1ap-id handover-desirable-for-radio-reason "
    "time-critical-handover resource-optimisation-handover reduce-load-in-serving-cell user-inactivity "
    "radio-connection-with-ue-lost load-balancing-tau-required cs-fallback-triggered ue-not-available-for-ps-service "
    "radio-resources-not-available failure-in-radio-interface-procedure invalid-qos-combination interrat-redirection "
    "interaction-with-other-procedure unknown-E-RAB-ID multiple-E-RAB-ID-instances "
    "encryption-and-or-integrity-protection-algorithms-not-supported s1-intra-system-handover-triggered "
    "s1-inter-system-handover-triggered x2-handover-triggered redirection-towards-1xRTT not-supported-QCI-value "
    "invalid-CSG-Id release-due-to-pre-emption n26-interface-not-available insufficient-ue-capabilities "
    "maximum-bearer-pre-emption-rate-exceeded up-integrity-protection-not-possible "
    "release-due-to-discontinuous-coverage",
    "transport-resource-unavailable unspecified",
    "normal-release authentication-failure detach unspecified csg-subscription-expiry uE-not-in-PLMN-serving-area "
    "iab-not-authorized",
    "transfer-syntax-error abstract-syntax-error-reject abstract-syntax-error-ignore-and-notify "
    "message-not-compatible-with-receiver-state semantic-error abstract-syntax-error-falsely-constructed-message "
    "unspecified",
    "control-processing-overload not-enough-user-plane-processing-resources hardware-failure om-intervention "
    "unspecified unknown-PLMN",
)

CAUSES: Final = tuple(
    tuple(Cause(group, value, name) for value, name in enumerate(names.split()))
    for group, names in zip(CAUSE_GROUPS, _CAUSE_NAMES, strict=True)
)
"""Every cause with a name, by group and value (TS 36.413 9.2.1.3)."""


def cause_of(group: int, value: int) -> Cause:
    """The cause of a group and value; a value newer than this list is called after its number."""
    known = CAUSES[group]
    return known[value] if value < len(known) else Cause(CAUSE_GROUPS[group], value, f"extension-{value}")
