#!/usr/bin/env bash
# Install the pinned packages into the environment $1, a folder; what is there already is kept.
# PYTHON names the interpreter to build a new .venv with, TORCH_INDEX an index to take torch from.
set -euo pipefail
cd "$(dirname "$0")/.."

env=$1
made=$env/.uepo # copies of the files that the environment was made from
fresh() { cmp --silent "$1" "$made/$1"; }
python=$env/bin/python
if [ "$env" = .venv ] && ! fresh requirements.lock; then
    python=${PYTHON:-python3}
elif [ -n "${PYTHON:-}" ]; then
    hint=
    [ "$env" != .venv ] || hint="; to build it anew: rm -r .venv, then make setup PYTHON=$PYTHON"
    echo "$env is kept, with $("$python" --version)$hint"
fi
fresh requirements.lock && fresh pyproject.toml && exit 0

version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null) || version=missing
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "uepo needs Python 3.11 or later and $python is $version;" \
        "name another one: make setup PYTHON=python3.12" >&2
    exit 2
fi

pip() { "$env/bin/python" -m pip --disable-pip-version-check "$@"; }
if ! fresh requirements.lock; then
    echo "setting up $env with Python $version: $(grep -c == requirements.lock) packages," \
        "about 2 GB and 4 minutes, once"
    # from scratch: mujoco leaves parts of itself behind when it is replaced
    [ "$env" != .venv ] || "$python" -m venv --clear .venv
    if [ -n "${TORCH_INDEX:-}" ]; then
        echo "torch from $TORCH_INDEX"
        pip install --quiet --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.lock)"
    fi
    pip install --quiet --requirement requirements.lock
fi
pip install --quiet --no-deps --editable .
pip check
mkdir -p "$made"
cp requirements.lock pyproject.toml "$made/"
echo "$env is ready"
