"""Octets of the radio protocol (TS 36.331) that S1AP carries unread, as Open5GS's own eNodeB emulation sends them.

They decode as valid RRC, and none of them identifies anybody.
"""

from __future__ import annotations

from typing import Final

from pycrate_asn1dir import S1AP

from mobiscud.core.ids import Ecgi
from testbed.s1ap_build import ecgi_value

UE_RADIO_CAPABILITY: Final = bytes.fromhex(
    "013001023cd98000bc000ff06ec4d00141b82c0000000007d404000ef0802000016a030000880000"
)

_HANDOVER_PREPARATION: Final = bytes.fromhex(
    "0f1014c59800018000bf06ec4d00100302c0000000000015a8001406720af00348f10013d03bc58414903bc58809401de2c210044013f2122"
    "49010127dad808fd50398381c08fd503983805f5037868baa010c846fb057874162d62e821f42f2e159f821d09c0009e28aa1a0012d88802"
    "6d06000408008066072003e415250d462102081843423c135002214d6dfb0a0b06502c402000004008177faab4677235334a0e867213e804"
    "03000"
)
_HANDOVER_COMMAND: Final = bytes.fromhex(
    "0bf900d8af4000a0339057801f4788009e81de2c20a481de2c404a00ef162000010044013f212249008093efd2433914cd2aa0a0142ff221"
    "4d6dfb82c1940b10080000020040bbfd55aeab41ad808fd50398381c08fd503983804d037868baa016423342bc3a18b58fa084ca833fa179"
    "70acfc10e84e0004f14550d00096c88900"
)

_E_RAB_INFORMATION_ITEM: Final = 78


def source_to_target(source: Ecgi, target: Ecgi, e_rab_id: int) -> bytes:
    """Source eNB to target eNB transparent container (TS 36.413 9.2.1.56), which proposes downlink forwarding."""
    container = S1AP.S1AP_IEs.SourceeNB_ToTargeteNB_TransparentContainer
    container.set_val(
        {
            "rRC-Container": _HANDOVER_PREPARATION,
            "e-RABInformationList": [
                {
                    "id": _E_RAB_INFORMATION_ITEM,
                    "criticality": "ignore",
                    "value": (
                        "E-RABInformationListItem",
                        {"e-RAB-ID": e_rab_id, "dL-Forwarding": "dL-Forwarding-proposed"},
                    ),
                }
            ],
            "targetCell-ID": ecgi_value(target),
            "uE-HistoryInformation": [
                (
                    "e-UTRAN-Cell",
                    {
                        "global-Cell-ID": ecgi_value(source),
                        "cellType": {"cell-Size": "verysmall"},
                        "time-UE-StayedInCell": 34,
                    },
                )
            ],
        }
    )
    octets: bytes = container.to_aper()
    return octets


def target_to_source() -> bytes:
    """Target eNB to source eNB transparent container (TS 36.413 9.2.1.57), with the Handover Command for the UE."""
    container = S1AP.S1AP_IEs.TargeteNB_ToSourceeNB_TransparentContainer
    container.set_val({"rRC-Container": _HANDOVER_COMMAND})
    octets: bytes = container.to_aper()
    return octets
