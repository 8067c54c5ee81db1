"""``mobiscud bench decode``: S1AP PDUs a second, ours against pycrate and tshark, on one corpus in one run.

pycrate decodes everything there is in a PDU, tshark too and the frames around it; ours reads the elements that tell
where a UE is, checks the bounds of all of them, and steps over the rest. That is the point, not an advantage in the
measurement. tshark's start-up is measured on one frame and taken off. Times are seconds of processor on one core.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from typing import Any, Final

from epc_monitor.frames import LINKTYPE_ETHERNET, Frame
from testbed.bench import common, corpus, forms, traffic
from testbed.bench.common import say
from testbed.bench.traffic import Pdu
from testbed.bench.wire import S1Wire, write_capture

PDUS: Final = 30_000
SEED: Final = 1
ROUNDS: Final = {"pycrate": 3, "selective": 9, "selective_compiled": 15, "tshark": 5}
ENBS: Final = 50
BETWEEN_FRAMES_NS: Final = 200_000
FIELDS: Final = ("s1ap.procedureCode", "s1ap.MME_UE_S1AP_ID", "s1ap.ENB_UE_S1AP_ID")


def run(count: int = PDUS) -> dict[str, Any]:
    """Measure; the whole report.

    :raises SetupError: tshark is missing
    :raises AdapterError: a contestant failed
    """
    with tempfile.TemporaryDirectory(prefix="mobiscud-bench-") as name:
        return common.report("decode", _measure(Path(name), count))


def _measure(directory: Path, count: int) -> dict[str, Any]:
    say(f"making {count} PDUs (half a minute)")
    pdus = traffic.generate(SEED, count)
    path = directory / "corpus"
    corpus.write(path, (pdu.octets for pdu in pdus))
    plain, compiled = forms.plain(directory / "plain"), forms.compiled()
    seconds = {
        "pycrate": _python("pycrate", path, "pycrate", plain),
        "tshark": _tshark(directory, pdus),
        "selective": _python("selective", path, "selective", plain),
    }
    if compiled is not None:
        seconds["selective_compiled"] = _python("selective_compiled", path, "selective", compiled)
    rates = {name: round(len(pdus) / seconds[name]) if name in seconds else None for name in ROUNDS}
    ours = ("selective", "selective_compiled")
    return {
        "messages_per_s": {name: rates[name] for name in ("pycrate", "tshark", *ours)},
        "times_pycrate": {name: common.ratio(rates[name], rates["pycrate"]) for name in ours},
        "times_tshark": {name: common.ratio(rates[name], rates["tshark"]) for name in ours},
        "corpus": {
            "pdus": len(pdus),
            "types": len(Counter(pdu.name for pdu in pdus)),
            "octets": sum(len(pdu.octets) for pdu in pdus),
            "seed": SEED,
        },
    }


def _python(name: str, path: Path, contestant: str, monitor: Path) -> float:
    rounds = ROUNDS[name]
    say(f"{name}: {rounds} rounds")
    answer = common.worker("decode_worker", contestant, str(path), str(rounds), monitor=monitor)
    return float(median(answer["seconds"]))


def _tshark(directory: Path, pdus: list[Pdu]) -> float:
    """Its time for all frames, without its start-up."""
    whole, one = directory / "all.pcap", directory / "one.pcap"
    frames = list(_frames(pdus))
    write_capture(whole, frames)
    write_capture(one, frames[:1])
    say(f"tshark: {ROUNDS['tshark']} rounds")
    rounds = [(common.took(tshark(whole)).cpu_s, common.took(tshark(one)).cpu_s) for _ in range(ROUNDS["tshark"])]
    return median(seconds for seconds, _ in rounds) - median(start for _, start in rounds)


def tshark(path: Path) -> tuple[str, ...]:
    """tshark printing three fields of S1AP, on one core and without asking a name server."""
    fields = (word for field in FIELDS for word in ("-e", field))
    return (*common.one_core(), "tshark", "-n", "-r", str(path), "-T", "fields", *fields)


def _frames(pdus: list[Pdu]) -> Iterator[Frame]:
    wires = [S1Wire(IPv4Address("10.0.1.0") + i, IPv4Address("10.0.0.1"), i) for i in range(ENBS)]
    at = 1_700_000_000_000_000_000
    for number, pdu in enumerate(pdus):
        for data in wires[number % ENBS].frames(pdu.octets, downlink=pdu.downlink):
            at += BETWEEN_FRAMES_NS
            yield Frame(at, LINKTYPE_ETHERNET, data)
