"""Contestants of ``bench decode`` that are Python: ``decode_worker {pycrate,selective} CORPUS ROUNDS``.

Prints the seconds of processor that each round over the whole corpus took, and which form of the monitor ran.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.bench import corpus


def _pycrate() -> Callable[[bytes], Any]:
    from pycrate_asn1dir import S1AP

    read: Callable[[bytes], Any] = S1AP.S1AP_PDU_Descriptions.S1AP_PDU.from_aper
    return read


def _selective() -> Callable[[bytes], Any]:
    from epc_monitor import s1ap

    return s1ap.decode


def main() -> None:
    contestant, path, rounds = sys.argv[1:]
    decode = {"pycrate": _pycrate, "selective": _selective}[contestant]()
    pdus = corpus.read(Path(path))
    seconds = []
    for _ in range(int(rounds)):
        began = time.process_time()
        for pdu in pdus:
            decode(pdu)
        seconds.append(time.process_time() - began)
    from testbed.bench.forms import is_compiled

    print(json.dumps({"seconds": seconds, "compiled": is_compiled()}))


if __name__ == "__main__":
    main()
