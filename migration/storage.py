"""The personal VMs' own disks, as libvirt volumes: what differs from the image that they began as.

Everything here blocks, and raises ``libvirt.libvirtError``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import libvirt

from migration.domain_xml import disk_name
from mobiscud.core.ids import PvmId

POOL: Final = "mobiscud-disks"


def keep_disk(connection: Any, pvm_id: PvmId, base: Path, base_format: str, directory: Path) -> None:
    """Make a PVM's disk, unless it is there."""
    pool = _pool(connection, directory)
    if _volume(pool, pvm_id) is not None:
        return
    volume = Element("volume")
    SubElement(volume, "name").text = disk_name(pvm_id)
    SubElement(SubElement(volume, "target"), "format", type="qcow2")
    backing = SubElement(volume, "backingStore")
    SubElement(backing, "path").text = str(base)
    SubElement(backing, "format", type=base_format)
    pool.createXML(ElementTree.tostring(volume, encoding="unicode"), 0)


def drop_disk(connection: Any, pvm_id: PvmId, directory: Path) -> None:
    """Delete a disk whose PVM has gone on with it elsewhere; none is fine."""
    volume = _volume(_pool(connection, directory), pvm_id)
    if volume is not None:
        volume.delete(0)


def has_disk(domain: Any) -> bool:
    """Tell whether a domain has a disk."""
    return ElementTree.fromstring(domain.XMLDesc()).find("devices/disk[@device='disk']") is not None


def migration_flags(*, shared: bool) -> int:
    """Tell libvirt what to do with the disk of a domain that migrates.

    It does not know every file system that hosts can share, and takes those it does not know for unsafe.
    """
    return int(libvirt.VIR_MIGRATE_UNSAFE if shared else libvirt.VIR_MIGRATE_NON_SHARED_INC)


def _pool(connection: Any, directory: Path) -> Any:
    """Find libvirt's pool of the directory, or make one that lasts as long as libvirtd."""
    try:
        pool = connection.storagePoolLookupByTargetPath(str(directory))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_POOL:
            raise
        described = Element("pool", type="dir")
        SubElement(described, "name").text = POOL
        SubElement(SubElement(described, "target"), "path").text = str(directory)
        text = ElementTree.tostring(described, encoding="unicode")
        return connection.storagePoolCreateXML(text, libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    if not pool.isActive():
        pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    return pool


def _volume(pool: Any, pvm_id: PvmId) -> Any | None:
    """Look anew: a migration has written here without the pool's knowledge, and on a shared disk so have others."""
    pool.refresh(0)
    try:
        return pool.storageVolLookupByName(disk_name(pvm_id))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_VOL:
            return None
        raise
