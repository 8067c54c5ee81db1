"""The sections about personal VMs: what they are made of, and the hosts that run them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from mobiscud.core.section import Name, Section


class ImageConfig(Section):
    """What a personal VM is made of: a kernel with its initrd, a disk, or both (the kernel then boots with the disk).

    Nobody writes to these files. With ``disk`` each PVM has one of its own, which begins as a copy of this one, holds
    what differs from it, and is kept for ever; without, it has none.
    """

    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    """More words for the kernel."""
    disk: Path | None = None
    format: Literal["qcow2", "raw"] = "qcow2"
    """How ``disk`` is written; the PVM's own is always qcow2."""
    memory_mib: int = Field(default=128, ge=64)
    vcpus: int = Field(default=1, ge=1, le=64)
    down_mbit_s: float | None = Field(default=None, gt=0, le=100_000)
    up_mbit_s: float | None = Field(default=None, gt=0, le=100_000)
    """How much a PVM may get and send, from its next boot on. None: no limit."""

    @model_validator(mode="after")
    def _something_to_boot(self) -> Self:
        if (self.kernel is None) != (self.initrd is None):
            raise ValueError("kernel and initrd go together")
        if self.kernel is None and self.disk is None:
            raise ValueError("needs kernel and initrd, or disk, or all three")
        if self.kernel is None and self.cmdline:
            raise ValueError("cmdline needs kernel: a disk boots a kernel of its own")
        _all_absolute(self.files())
        return self

    def files(self) -> Iterator[tuple[str, Path]]:
        """The key and the path of each file that must be there."""
        named = (("kernel", self.kernel), ("initrd", self.initrd), ("disk", self.disk))
        return ((name, path) for name, path in named if path is not None)


class HypervisorConfig(Section):
    """The libvirt host of one cloudlet and the guests it runs.

    ``kernel``, ``initrd`` and ``memory_mib`` make a PVM that names no image, unless ``image`` says what does.
    """

    cloudlet: Name
    uri: str = "qemu:///system"
    bridge: str = "br-pvm"
    kernel: Path | None = None
    initrd: Path | None = None
    memory_mib: int = Field(default=128, ge=64)
    image: Name | None = None
    max_downtime_ms: int = Field(default=20, ge=1, le=2_000_000)
    bandwidth_mib_s: int | None = Field(default=None, ge=1)
    """Of each migration that leaves from here; None: all that the link carries."""
    migrations: int = Field(default=2, ge=1)
    """How many may leave at once; the others wait for their turn."""
    mode: Literal["auto", "pre_copy", "post_copy"] = "auto"
    on_stop: Literal["destroy", "save", "pause"] = "destroy"
    """What a stop does: end the guest; keep its memory in a file; or keep it in memory, the fastest to start again."""
    pool: int | None = Field(default=None, ge=0)
    """How many of the paused stay in memory; beyond it those paused longest are saved. None: all."""
    max_pvms: int | None = Field(default=None, ge=1)
    max_memory_mib: int | None = Field(default=None, ge=64)
    """How many PVMs fit, and how much memory they have together. None: no limit."""
    saved_images: Path = Path("/var/lib/mobiscud/saved")
    """Where such files are, on a disk that the hypervisor and this program see by the same path."""
    disks: Path = Path("/var/lib/mobiscud/disks")
    """Where the PVMs' own disks are, by the same path on every host and for this program."""
    shared_disks: bool = False
    """Whether ``disks`` is one directory that all hosts share; else a disk goes along when its PVM migrates."""

    @model_validator(mode="after")
    def _one_default(self) -> Self:
        if (self.kernel is None) != (self.initrd is None):
            raise ValueError("kernel and initrd go together")
        if self.image is not None and self.kernel is not None:
            raise ValueError("image and kernel exclude each other")
        if self.pool is not None and self.on_stop != "pause":
            raise ValueError("pool needs on_stop: pause")
        given = (("kernel", self.kernel), ("initrd", self.initrd))
        _all_absolute((name, path) for name, path in given if path is not None)
        return self

    def default_image(self) -> ImageConfig | None:
        """What ``kernel`` and ``initrd`` describe."""
        if self.kernel is None:
            return None
        return ImageConfig(kernel=self.kernel, initrd=self.initrd, memory_mib=self.memory_mib)


def _all_absolute(files: Iterable[tuple[str, Path]]) -> None:
    for name, path in files:
        if not path.is_absolute():
            raise ValueError(f"{name} is an absolute path: a migration takes it along")


def image_of(name: str | None, images: Mapping[str, ImageConfig], host: HypervisorConfig) -> ImageConfig | None:
    """What a host makes a PVM of whose image is ``name``; None where nothing says so."""
    name = name or host.image
    return host.default_image() if name is None else images.get(name)


def missing_files(images: Mapping[str, ImageConfig], host: HypervisorConfig) -> list[str]:
    """What a host cannot boot for want of a file, each with the key that names it. Looks at this machine's disk."""
    default = host.default_image()
    named = [(f"images.{name}", image) for name, image in images.items()]
    named += [] if default is None else [(f"hypervisors: {host.cloudlet}", default)]
    return [
        f"{where}.{key}: there is no file {path}"
        for where, image in named
        for key, path in image.files()
        if not path.is_file()
    ]


def image_problems(
    images: Mapping[str, ImageConfig], hosts: Iterable[HypervisorConfig], wanted: Mapping[str | None, str]
) -> list[str]:
    """What does not agree between the catalogue and those who name its images; ``wanted``: who, by what it names."""
    problems = []
    for host in hosts:
        if host.image is not None and host.image not in images:
            problems.append(f"hypervisors: image {host.image!r} is not among images")
        elif None in wanted and image_of(None, images, host) is None:
            problems.append(f"hypervisors: {host.cloudlet} needs kernel and initrd, or image, for {wanted[None]}")
    problems += [
        f"offload: image {name!r} of {who} is not among images"
        for name, who in wanted.items()
        if name is not None and name not in images
    ]
    return problems
