"""End a guest without its hypervisor's help, when libvirtd is gone and its QEMU may run on."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mobiscud.core.errors import AdapterError
from mobiscud.core.ids import PvmId

OWN_NETWORK: Final = Path("/proc/self/ns/net")
PROC: Final = Path("/proc")
LIMIT_S: Final = 5.0


def end_by_force(pvm_id: PvmId, network: Path = OWN_NETWORK) -> int:
    """Kill the QEMU processes of a PVM and wait until they are gone; gives how many there were. Blocks.

    :param network: only processes in this network namespace: hosts that share a machine differ in it
    :raises AdapterError: one of them does not go, or may not be killed
    """
    ended = 0
    for process in _processes_of(pvm_id, network):
        try:
            handle = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        try:
            if not _is_of(process, pvm_id):
                continue  # the number has gone to another process
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not select.select([handle], [], [], LIMIT_S)[0]:
                raise AdapterError(f"QEMU of {pvm_id}, process {process}, does not end")
            ended += 1
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise AdapterError(f"QEMU of {pvm_id}, process {process}, may not be killed from here") from error
        finally:
            os.close(handle)
    return ended


def _processes_of(pvm_id: PvmId, network: Path) -> Iterator[int]:
    wanted = os.readlink(network)
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.readlink(entry / "ns/net") == wanted and _is_of(int(entry.name), pvm_id):
                yield int(entry.name)
        except OSError:
            continue  # it has ended, or is none of ours


def _is_of(process: int, pvm_id: PvmId) -> bool:
    """Tell whether it is a QEMU that libvirt started for the PVM: ``qemu-... -name guest=ID,...``."""
    try:
        words = (PROC / str(process) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    if "-name" not in words[:-1] or "qemu" not in Path(words[0]).name:
        return False
    return words[words.index("-name") + 1].split(",")[0] == f"guest={pvm_id}"
