"""The network that the scripts of the tracker's tests play."""

from __future__ import annotations

import pytest

from testbed.scripted_epc import Network


@pytest.fixture
def network() -> Network:
    return Network()
