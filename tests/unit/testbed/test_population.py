"""The population beside the bench's canary, with which it shares a switch."""

from mobiscud.core.edge import PathSpec
from testbed import population
from testbed.switch_bench import CANARY, CANARY_PATH

UES = 10_000


def names(path: PathSpec) -> set[object]:
    """All by which a switch tells this path from others."""
    return {path.ue_ip, path.pvm, path.pvm.address, path.pvm.mac, *path.uplinks, path.downlink}


def test_the_canary_is_nobody_of_the_population() -> None:
    """Else a handover would take it away, and with it the sign that a packet has had its time."""
    assert CANARY not in population.records(UES)
    assert not any(names(population.path(number)) & names(CANARY_PATH) for number in range(UES))
