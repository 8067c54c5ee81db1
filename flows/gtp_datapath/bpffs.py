"""The file system that holds the pins, and the pins of one cloudlet."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobiscud.core.errors import SetupError

FOLDER = "mobiscud"
SOURCE = "mobiscud"  # the mount's first field in /proc/mounts: whose it is
KERNELS_OWN = {"maps.debug", "progs.debug"}  # every new BPF file system holds these
LOCK = Path("/run/lock/mobiscud-bpffs.lock")


def pin_folder(bpffs: Path, cloudlet: str) -> Path:
    """Where the pins of a cloudlet are. The file system reserves names with dots."""
    return bpffs / FOLDER / cloudlet.replace(".", "_")


def prepare(bpffs: Path, cloudlet: str) -> Path:
    """Make the pin folder, after mounting a BPF file system at ``bpffs`` where there is none.

    :raises SetupError: no privilege to mount
    """
    with _lock():
        if _mounted(bpffs) is None:
            try:
                bpffs.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SetupError(f"cannot make {bpffs} to mount a BPF file system on: {error.strerror}") from error
            _mount(bpffs)
        folder = pin_folder(bpffs, cloudlet)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def sweep(bpffs: Path, cloudlet: str | None = None) -> None:
    """Remove the pins of a cloudlet, or of all; and the mount when it is ours and nothing is left in it.

    Programs that are attached stay so: a pin is only a name.
    """
    if _mounted(bpffs) is None:
        return
    with _lock():
        folder = bpffs / FOLDER if cloudlet is None else pin_folder(bpffs, cloudlet)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            (bpffs / FOLDER).rmdir()
        except OSError:
            return  # another cloudlet's pins are there
        left = {entry.name for entry in bpffs.iterdir()} - KERNELS_OWN
        if _mounted(bpffs) == SOURCE and not left:
            _libc().umount2(str(bpffs).encode(), 0)


def _mounted(path: Path) -> str | None:
    """The source of the BPF file system mounted at ``path``; None where there is none."""
    found = None
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, target, kind = line.split(" ", 3)[:3]
        if target == str(path) and kind == "bpf":
            found = source
    return found


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(path: Path) -> None:
    if _libc().mount(SOURCE.encode(), str(path).encode(), b"bpf", 0, b"mode=0700"):
        reason = os.strerror(ctypes.get_errno())
        raise SetupError(f"cannot mount a BPF file system at {path}: {reason}; run as root, or mount it beforehand")


@contextmanager
def _lock() -> Iterator[None]:
    """Several cloudlets may start at once on one machine, and must not mount one over the other."""
    try:
        LOCK.parent.mkdir(parents=True, exist_ok=True)
        file = LOCK.open("a")
    except OSError as error:
        raise SetupError(f"cannot open {LOCK}: {error.strerror}; run as root") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
