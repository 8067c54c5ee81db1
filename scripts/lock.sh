#!/bin/sh
# Locks the Python packages: versions and hashes, no addresses. Needs pip-tools in .venv (`pip install pip-tools`).
set -eu
cd "$(dirname "$0")/.."
.venv/bin/pip-compile --quiet --generate-hashes --extra node --extra testbed --extra dev --strip-extras --allow-unsafe \
    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --output-file requirements.lock pyproject.toml
