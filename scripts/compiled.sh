#!/bin/sh
# Builds the compiled form of the monitor into build/compiled, for tests and measurements:
#     PYTHONPATH=build/compiled .venv/bin/mobiscud replay FILE
# Only epc_monitor is there, everything else comes from the checkout. Running it again builds only what has changed.
set -eu
cd "$(dirname "$0")/.."

out=build/compiled
stamp=$out/.source
mkdir -p build
exec 9>build/.compiled.lock
flock 9

wanted=$(find setup.py pyproject.toml epc_monitor mobiscud/core -name '*.py' -o -name pyproject.toml |
    LC_ALL=C sort | xargs sha256sum | sha256sum)
[ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ] || exit 0

echo "compiled: building $out (half a minute)" >&2
rm -rf "$out" build/compiled.whole
MOBISCUD_COMPILE=1 .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
    --target build/compiled.whole . >&2
mkdir "$out"
mv build/compiled.whole/epc_monitor "$out/"
rm -rf build/compiled.whole
if ! PYTHONPATH=$out .venv/bin/python -P -c 'import sys, epc_monitor.aper as m; sys.exit(m.__file__.endswith(".py"))'; then
    rm -rf "$out"
    echo "compiled: there is no compiled form on this machine (apt install gcc libc6-dev python3-dev)" >&2
    exit 1
fi
printf '%s' "$wanted" >"$stamp"
