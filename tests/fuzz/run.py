"""Coverage-guided fuzzing of one decoder: ``python tests/fuzz/run.py TARGET FOLDER [libFuzzer options]``.

The folder gets the corpus, seeded from the captures of the tests, and keeps it for the next time; what breaks the
target is written beside it. Needs atheris (``pip install .[testbed,fuzz]``). ``make fuzz`` runs all targets.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["epc_monitor", "mobiscud.core", "mobiscud.bus.cloudevents"]):
    from testbed.fuzz_targets import TARGETS, seeds

CAPTURES = Path(__file__).parents[1] / "vectors" / "captures"


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(TARGETS)}}} FOLDER [libFuzzer options]")
    target, folder, options = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(target, CAPTURES):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={folder}/{target}-", *options], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
