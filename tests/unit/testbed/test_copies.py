"""The observer of copies: who changes sides between two questions is one guest, who answers twice is two."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from testbed.copies import CopyWatch, belongings_of


class Scripted(CopyWatch):
    """Asks hosts that answer by a script: one line a round of questions."""

    def __init__(self, rounds: Iterable[str]) -> None:
        super().__init__("pvm-1", {"c1": "", "c2": ""})
        self._rounds: Iterator[str] = iter(rounds)
        self.over = threading.Event()

    def _running(self) -> frozenset[str]:
        running = next(self._rounds, None)
        if running is None:
            self.over.set()
            return frozenset()
        return frozenset(running.split())


def watched(*rounds: str) -> Scripted:
    with Scripted(rounds) as watch:
        assert watch.over.wait(30)
    return watch


def test_a_guest_that_moves_is_seen_once() -> None:
    watch = watched("c1", "c1 c2", "c2", "c2")
    assert watch.seen.doubles == []
    assert watch.seen.count >= 3


def test_two_copies_are_seen_for_as_long_as_they_last() -> None:
    watch = watched("c1", "c1 c2", "c1 c2", "c1 c2", "c1 c2", "c2")
    ((_, lasted),) = watch.seen.doubles
    assert watch.seen.longest_double_s == lasted > 0


def test_what_a_host_holds_for_guests(tmp_path: Path) -> None:
    (tmp_path / "run/libvirt/qemu").mkdir(parents=True)
    (tmp_path / "run/libvirt/qemu/pvm-1.xml").touch()
    found = belongings_of(os.getpid(), tmp_path, lambda: "Inter-|\n lo: 0\n vnet0: 0\n vnet7: 0\n br-pvm: 0\n")
    assert found.taps == 2
    assert found.files == {"run/libvirt/qemu/pvm-1.xml"}
