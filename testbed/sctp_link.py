"""SCTP for S1AP, whichever way this kernel allows.

Where the kernel's own SCTP is loaded it is used, as it would answer packets of raw sockets with ABORT; elsewhere an
association of ours runs on raw sockets, so that the testbed needs no module that a kernel may lack.
"""

from __future__ import annotations

from pathlib import Path

from testbed.sctp_kernel import KernelEndpoint
from testbed.sctp_raw import RawEndpoint
from testbed.sctp_transport import SctpEndpoint


def kernel_has_sctp() -> bool:
    """Whether the kernel's own SCTP is loaded. The mere possibility to load it does not count, and is not tried."""
    return Path("/proc/net/sctp").exists()


def open_endpoint(namespace: str, address: str) -> SctpEndpoint:
    """Open an endpoint at a local address of a network namespace.

    :raises SetupError: without CAP_NET_RAW, or without the namespace or its address
    """
    return KernelEndpoint(namespace, address) if kernel_has_sctp() else RawEndpoint(namespace, address)
