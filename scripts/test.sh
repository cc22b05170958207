#!/usr/bin/env bash
# All checks, with the python $1. What they compute goes to a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."

py=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
export UEPO_RESULTS=$root/results MINARI_DATASETS_PATH=$root/data
export IPYTHONDIR=$root/ipython JUPYTER_RUNTIME_DIR=$root/jupyter
export UEPO_PROFILE=smoke UEPO_PRETRAINED=0
tree() { git status --porcelain 2>/dev/null || true; }
before=$(tree)

step() { echo "== $1 ($SECONDS s)"; }
step "ruff"
"$py" -m ruff check .
"$py" -m ruff format --check .
step "mypy"
"$py" -m mypy uepo_lib benchmarks
step "pytest"
MPLBACKEND=agg "$py" -m pytest tests -n 2 -q | tee "$root/tests"
step "notebook pairs"
"$py" -m uepo_lib.pairs check
step "smoke data and shared models"
"$py" -m uepo_lib prepare --profile smoke
step "notebooks"
# lax: every cell must run; outputs are compared in the cells tagged nbval-check-output
"$py" -m pytest notebooks -n 2 -q --dist loadscope --nbval-lax --nbval-current-env \
    --nbval-cell-timeout 300 | tee "$root/notebooks"

if [ "$(tree)" != "$before" ]; then
    printf 'the checks changed the working tree:\n%s\n' "$(tree)" >&2
    exit 1
fi
step "all passed"
echo "tests:     $(tail -n 1 "$root/tests")"
echo "notebooks: $(tail -n 1 "$root/notebooks")"
