from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from testbed.guest.initramfs import archive, character_device, directory, link, program


def test_the_format_is_newc_and_padded_to_words() -> None:
    made = archive([program("init", b"12345")])
    assert made.startswith(b"070701")
    assert len(made) % 4 == 0
    assert made[6:14] == b"00000001"  # inode
    assert int(made[14:22], 16) == stat.S_IFREG | 0o755
    assert int(made[54:62], 16) == 5  # size
    assert made[110:115] == b"init\0"
    assert made[116:121] == b"12345"  # 110 octets of header and 5 of name, padded to 116
    assert b"TRAILER!!!" in made


def test_the_same_input_gives_the_same_bytes() -> None:
    entries = [directory("bin"), program("bin/a", b"a"), link("bin/b", "a"), character_device("console", 5, 1)]
    assert archive(entries) == archive(entries)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio(1)")
def test_cpio_reads_it(tmp_path: Path) -> None:
    made = archive([directory("bin"), program("bin/a", b"hello"), link("bin/b", "a")])
    subprocess.run(["cpio", "--extract", "--quiet"], input=made, cwd=tmp_path, check=True)
    assert (tmp_path / "bin/b").read_bytes() == b"hello"
    assert (tmp_path / "bin/a").stat().st_mode & 0o777 == 0o755
