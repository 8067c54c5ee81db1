"""``replay_worker FILE ROUNDS``: the whole path from frame to events, frames in memory, a new monitor each round.

Prints the seconds of processor of each round, and what the monitor counted.
"""

from __future__ import annotations

import json
import sys
import time

from epc_monitor.capture import read_capture
from epc_monitor.identity import UeKeys
from epc_monitor.pipeline import Monitor
from testbed.bench.forms import is_compiled


def main() -> None:
    path, rounds = sys.argv[1:]
    frames = list(read_capture(path))
    seconds = []
    for _ in range(int(rounds)):
        monitor = Monitor(UeKeys(bytes(32)))
        receive = monitor.receive
        began = time.process_time()
        for frame in frames:
            receive(frame)
        seconds.append(time.process_time() - began)
    print(json.dumps({"seconds": seconds, "stats": monitor.stats.as_dict(), "compiled": is_compiled()}))


if __name__ == "__main__":
    main()
