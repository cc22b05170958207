#!/usr/bin/env bash
# Compare with peers: $1 is the project's python, the rest are options of benchmarks.parity.
# d3rlpy pins another gymnasium than ours, so it has an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

py=$1
shift
env=.venv-parity-d3rlpy
pins=benchmarks/parity/requirements-d3rlpy.txt
if ! cmp --silent "$pins" "$env/made-from.txt"; then
    echo "setting up $env: $(grep -c == "$pins") packages, about 1 GB, once"
    "$py" -m venv --clear "$env"
    pip() { "$env/bin/python" -m pip --disable-pip-version-check "$@"; }
    if [ -n "${TORCH_INDEX:-}" ]; then
        pip install --quiet --index-url "$TORCH_INDEX" "$(grep '^torch==' "$pins")"
    fi
    pip install --quiet --requirement "$pins"
    cp "$pins" "$env/made-from.txt"
fi
exec "$py" -m benchmarks.parity "$@"
