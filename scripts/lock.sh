#!/usr/bin/env bash
# Pin what the environment of $1 (a python) has installed: requirements.lock and environment.yml.
set -euo pipefail
cd "$(dirname "$0")/.."

# "+cpu" names a build of torch, not a version: which build is chosen when it is installed
pins=$("${1:-.venv/bin/python}" -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$//')

cat > requirements.lock <<EOF
# Every package of the environment, pinned (make lock); environment.yml holds the same pins.
# A CUDA build of torch brings the nvidia-* and triton versions that it pins itself.
$pins
EOF

cat > environment.yml <<EOF
# conda env create -f environment.yml && conda activate uepo
# The pins are those of requirements.lock (make lock writes both).
name: uepo
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
$(sed 's/^/      - /' <<< "$pins")
      - -e .
EOF
