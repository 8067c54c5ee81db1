"""The table as a whole."""

from __future__ import annotations

from typing import get_args

import pytest

from mobiscud.controller.inputs import Input, Landed, PvmRunning
from mobiscud.controller.machine import TRANSITIONS
from mobiscud.controller.record import Phase
from tests.unit.mobiscud.machine.playbook import serving


def test_what_cannot_follow_changes_nothing() -> None:
    serving().ignores(PvmRunning()).ignores(Landed(1)).is_in(Phase.SERVING)


@pytest.mark.parametrize("kind", get_args(Input), ids=lambda k: k.__name__)
def test_every_input_means_something_somewhere(kind: type[Input]) -> None:
    assert any(known is kind for _, known in TRANSITIONS)


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_can_be_left(phase: Phase) -> None:
    assert any(known is phase for known, _ in TRANSITIONS)
