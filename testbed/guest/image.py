"""Build the guest from Debian's own packages, once for each combination of packages and sources.

``python -m testbed.guest.image`` prints where the kernel and the initramfs are, as one JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mobiscud.core.errors import SetupError
from testbed.guest import initramfs

CACHE: Final = Path("/var/cache/mobiscud/guest")
SOURCES: Final = Path(__file__).parent
BUSYBOX_COMMANDS: Final = ("sh", "mount", "insmod", "ip", "cat", "echo")
MODULES: Final = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/block/virtio_blk",
)
"""Kernel modules of the guest, each after those it needs."""


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What a hypervisor boots: both files are only read, and may be shared by any number of guests."""

    kernel: Path
    initrd: Path


def build(cache: Path = CACHE) -> GuestImage:
    """Give the guest's files, made now if they are not in ``cache``; takes some ten seconds then. Blocks.

    Two builds at once are harmless: the later one wins, with the same files.

    :raises SetupError: a program is missing, or the packages cannot be fetched
    """
    kernel_package = _kernel_package()
    made = cache / _key(kernel_package)
    image = GuestImage(made / "vmlinuz", made / "initrd.gz")
    if image.kernel.is_file() and image.initrd.is_file():
        return image
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as scratch:
        _build_in(Path(scratch), kernel_package)
        ready = Path(scratch) / "ready"
        try:
            ready.rename(made)
        except OSError:
            if not image.initrd.is_file():
                shutil.rmtree(made, ignore_errors=True)
                ready.rename(made)
    _say(f"guest image: {made}")
    return image


def _kernel_package() -> str:
    """The package behind the metapackage, as apt knows it here: ``linux-image-6.1.0-NN-cloud-amd64=VERSION``."""
    depends = _run("apt-cache", "depends", "linux-image-cloud-amd64")
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", depends)
    if found is None:
        raise SetupError("apt knows no linux-image-cloud-amd64: run apt-get update")
    version = re.search(r"Candidate: (\S+)", _run("apt-cache", "policy", found[1]))
    if version is None:
        raise SetupError(f"apt has no candidate of {found[1]}: run apt-get update")
    return f"{found[1]}={version[1]}"


def _key(kernel_package: str) -> str:
    """The cache's name for what these packages and these sources give."""
    digest = hashlib.sha256(kernel_package.encode())
    for source in ("image.py", "initramfs.py", "init.sh", "guestd.c"):
        digest.update((SOURCES / source).read_bytes())
    return digest.hexdigest()[:16]


def _build_in(scratch: Path, kernel_package: str) -> None:
    """Leave the two files in ``scratch``/ready."""
    _say(f"guest image: fetching {kernel_package} and busybox-static")
    # Fetched as root: apt's own user cannot write where we build.
    _run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", kernel_package, "busybox-static", cwd=scratch)
    tree = scratch / "tree"
    for package in scratch.glob("*.deb"):
        _run("dpkg-deb", "--extract", str(package), str(tree))
    _say("guest image: compiling the guest's daemon")
    daemon = scratch / "guestd"
    _run("gcc", "-O2", "-Wall", "-Werror", "-static", "-pthread", "-o", str(daemon), str(SOURCES / "guestd.c"))
    ready = scratch / "ready"
    ready.mkdir()
    content = initramfs.archive(_entries(tree, daemon))
    (ready / "initrd.gz").write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
    shutil.copyfile(next((tree / "boot").glob("vmlinuz-*")), ready / "vmlinuz")
    ready.chmod(0o755)


def _entries(tree: Path, daemon: Path) -> Iterator[initramfs.Entry]:
    for path in ("bin", "dev", "proc", "sys", "modules"):
        yield initramfs.directory(path)
    yield initramfs.character_device("dev/console", 5, 1)
    yield initramfs.program("bin/busybox", (tree / "bin/busybox").read_bytes())
    for command in BUSYBOX_COMMANDS:
        yield initramfs.link(f"bin/{command}", "busybox")
    modules = next((tree / "lib/modules").iterdir()) / "kernel"
    for order, module in enumerate(MODULES):
        source = modules / f"{module}.ko"
        # The number keeps the order of loading through the shell's sorting.
        yield initramfs.program(f"modules/{order:02d}-{source.name}", source.read_bytes())
    yield initramfs.program("bin/guestd", daemon.read_bytes())
    yield initramfs.program("init", (SOURCES / "init.sh").read_bytes())


def _run(*command: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise SetupError(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        raise SetupError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def _say(progress: str) -> None:
    sys.stderr.write(progress + "\n")


def main() -> None:
    """Build, and say where the files are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where finished images are kept")
    image = build(parser.parse_args().cache)
    sys.stdout.write(json.dumps({"kernel": str(image.kernel), "initrd": str(image.initrd)}) + "\n")


if __name__ == "__main__":
    main()
