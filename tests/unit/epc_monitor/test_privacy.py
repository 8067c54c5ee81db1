"""No IMSI where it does not belong: not in logs, errors or counters, nor in what an event shows of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from epc_monitor import gtpv2, nas, s1ap
from epc_monitor.frames import Frame
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from mobiscud.core.errors import DecodeError
from mobiscud.core.events import Event, MonitorDesynchronised, UeEvent
from mobiscud.core.ids import Imsi
from testbed.scripted_epc import Nas, Network, gtp_element, imsi_identity, tbcd

CAPTURES = Path(__file__).parents[2] / "vectors" / "captures"
NAMES = sorted(path.stem for path in CAPTURES.glob("*.pcap"))
IMSI = "999700000000001"

Watch = Callable[[str], tuple[list[Event], Monitor]]


def imsis_of(events: list[Event]) -> set[str]:
    return {str(event.imsi) for event in events if isinstance(event, UeEvent) and event.imsi is not None}


def replay(tmp_path: Path, name: str, privacy: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "config.yaml"
    config.write_text("privacy: {key: a secret for the tests of privacy}\n")
    command = [sys.executable, "-m", "mobiscud", "replay", str(CAPTURES / f"{name}.pcap"), "--stats"]
    options = ["--config", str(config), "--privacy", privacy, "--log-level", "debug", "--log-format", "json"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("name", ["epc-multi-ue-a", "epc-attach-eea2", "epc-detach"])
def test_a_replay_with_pseudonyms_prints_no_imsi(name: str, tmp_path: Path, watch: Watch) -> None:
    imsis = imsis_of(watch(name)[0])
    assert imsis
    done = replay(tmp_path, name, "pseudonym")
    assert done.stdout
    for imsi in imsis:
        assert imsi not in done.stdout + done.stderr
        assert tbcd(imsi).hex() not in done.stdout + done.stderr


def test_a_replay_in_clear_prints_it_in_its_place_and_logs_none(tmp_path: Path, watch: Watch) -> None:
    imsis = imsis_of(watch("epc-multi-ue-a")[0])
    done = replay(tmp_path, "epc-multi-ue-a", "clear")
    told = {json.loads(line)["data"].get("imsi") for line in done.stdout.splitlines()} - {None}
    assert told == imsis
    assert not any(imsi in done.stderr for imsi in imsis)
    for line in done.stdout.splitlines():
        data = json.loads(line)
        data["data"].pop("imsi", None)
        assert not any(imsi in json.dumps(data) for imsi in imsis)


@pytest.mark.parametrize("name", NAMES)
def test_events_and_counters_show_no_imsi_of_themselves(name: str, watch: Watch) -> None:
    """Whatever is logged by its ``repr`` is safe."""
    events, monitor = watch(name)
    shown = " ".join(map(repr, events)) + repr(monitor.stats)
    assert not [imsi for imsi in imsis_of(events) if imsi in shown]


def damaged(whole: bytes) -> list[bytes]:
    """A message cut short at each octet, and with each octet changed."""
    cut = [whole[:size] for size in range(len(whole))]
    changed = [whole[:at] + bytes((octet,)) + whole[at + 1 :] for at in range(len(whole)) for octet in (0, 0x7F, 0xFF)]
    return cut + changed


ATTACH = Nas.attach(imsi_identity(IMSI))
CREATE_SESSION = b"\x48\x20\0\x17\0\0\0\0\0\0\1\0" + gtp_element(1, tbcd(IMSI)) + gtp_element(2, b"\x10\0")


@pytest.mark.parametrize(
    ("decode", "whole"),
    [
        (lambda octets: nas.decode(octets, uplink=True), ATTACH),
        (lambda octets: nas.decode(octets, uplink=True), Nas.identity(IMSI)),
        (gtpv2.decode, CREATE_SESSION),
        (s1ap.decode, b"\0\x0c\x40\x80\x26\0\0\1\0\x1a\x40" + bytes((len(ATTACH) + 1, len(ATTACH))) + ATTACH),
    ],
    ids=["attach", "identity", "create session", "initial ue message"],
)
def test_errors_name_no_digits(decode: Callable[[bytes], object], whole: bytes) -> None:
    digits, raw = re.compile(r"\d{6}"), [IMSI, tbcd(IMSI).hex(), repr(tbcd(IMSI))]
    errors = 0
    for octets in damaged(whole):
        try:
            decode(octets)
        except DecodeError as error:
            errors += 1
            text = f"{error} {error!r} {error.args} {error.offset}"
            assert not digits.search(text)
            shown = "".join(traceback.format_exception_only(error))
            assert not any(form in shown for form in raw)
    assert errors > 0


@pytest.mark.parametrize("digits", ["99970000000000", "9997000000000012", "99970x000000001"])
def test_a_wrong_imsi_is_not_repeated_in_the_error(digits: str) -> None:
    try:
        shown = repr(Imsi(digits))
    except ValueError as error:
        shown = str(error)
    assert digits not in shown


def test_what_is_out_of_step_is_told_without_a_name(network: Network) -> None:
    enb = network.enb(11)
    network.attach(enb, IMSI)
    [told, _] = enb.says("HandoverCancel", Cause=("misc", "unspecified"), MME_UE_S1AP_ID=1, eNB_UE_S1AP_ID=1)
    assert isinstance(told, MonitorDesynchronised)
    assert IMSI not in told.detail
    assert IMSI not in repr(told)


@pytest.fixture
def network() -> Network:
    return Network()


def test_keys_of_two_secrets_have_nothing_in_common(frames_of: Callable[[str], list[Frame]]) -> None:
    def keys(secret: bytes) -> set[str]:
        monitor = Monitor(UeKeys(secret))
        events = [event for frame in frames_of("epc-multi-ue-a") for event in monitor.receive(frame)]
        return {event.ue for event in events if isinstance(event, UeEvent)}

    assert not keys(bytes(32)) & keys(bytes(31) + b"\1")
