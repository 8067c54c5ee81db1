"""How many examples the property tests try: the same ones in each run of the suite, others when exploring.

``HYPOTHESIS_PROFILE=explore`` with ``--hypothesis-seed``: ``make explore``. A test that sets its own number keeps it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

pytest.register_assert_rewrite(  # these assert for the tests that use them
    "tests.unit.mobiscud.machine.playbook",
    "tests.contract.flows.switches",
    "tests.property.site",
)

settings.register_profile("suite", derandomize=True, max_examples=300, print_blob=True)
settings.register_profile("explore", max_examples=int(os.environ.get("EXPLORE_EXAMPLES", "10000")), print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
