"""The compiled form of the monitor: ``MOBISCUD_COMPILE=1 pip install .``, the same typed source through mypyc.

Everything else about the project is in pyproject.toml. Where there is no C compiler the build says so and goes on
with plain Python, which does the same, only slower.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

HOT: Final = (
    "aper",
    "capture",
    "frames",
    "gtpv2",
    "identity",
    "nas",
    "pipeline",
    "s1ap/*",
    "sctp",
    "sctp_stream",
    "ue_tracker/*",
    "values",
)
"""What each captured frame passes, from the file to the events; packages keep their ``__init__`` plain."""

MYPY: Final = "mypy==2.4.1"
"""The version with which the compiled form is tested."""

ROOT: Final = Path(__file__).resolve().parent

BUILDS: Final = frozenset(("bdist_wheel", "build", "build_ext", "editable_wheel", "install"))


def say(message: str) -> None:
    print(f"mobiscud: {message}", file=sys.stderr)


def extensions() -> list[Extension]:
    """The modules to compile; none where mypyc is missing, or nothing is to be built."""
    if not BUILDS.intersection(sys.argv):
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        say(f"MOBISCUD_COMPILE is set and mypyc is missing (pip install {MYPY}): the monitor stays plain Python")
        return []
    sources = [path for name in HOT for path in sorted((ROOT / "epc_monitor").glob(f"{name}.py"))]
    return mypycify(
        [str(path.relative_to(ROOT)) for path in sources if path.name != "__init__.py"],
        debug_level="0",
        target_dir="build/mypyc",
        group_name="epc_monitor.compiled",
    )


class BuildOrStayPlain(build_ext):
    """Compiles; a machine that cannot gets the plain form and is told why."""

    def run(self) -> None:
        try:
            super().run()
        except (CCompilerError, ExecError, PlatformError) as error:
            say(f"cannot compile the monitor, it stays plain Python: {error} (apt install gcc libc6-dev python3-dev)")
            self.extensions = self.distribution.ext_modules = []


def sweep() -> None:
    """Take away what an earlier compiled editable install left in the checkout: nobody would see that it is old."""
    if "editable_wheel" in sys.argv:
        for library in (ROOT / "epc_monitor").rglob("*.so"):
            library.unlink()


sweep()
if os.environ.get("MOBISCUD_COMPILE", "0") not in ("", "0"):
    setup(ext_modules=extensions(), setup_requires=[MYPY], cmdclass={"build_ext": BuildOrStayPlain})
else:
    setup()
