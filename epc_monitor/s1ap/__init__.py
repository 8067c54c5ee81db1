"""S1AP (TS 36.413), read selectively: a PDU in, the few elements that tell where a UE is out.

Every other element is stepped over by its length. Any bytes give an S1apMessage or DecodeError.
"""

from epc_monitor.s1ap.erabs import ERabAdmitted, ERabCause, ERabEnd, ERabForwarding, ERabModify, ERabSetup
from epc_monitor.s1ap.message import S1apMessage, decode
from epc_monitor.s1ap.types import MessageType

__all__ = [
    "ERabAdmitted",
    "ERabCause",
    "ERabEnd",
    "ERabForwarding",
    "ERabModify",
    "ERabSetup",
    "MessageType",
    "S1apMessage",
    "decode",
]
