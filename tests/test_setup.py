"""What setup.sh says of an environment that is there; nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("requirements.lock", "pyproject.toml")
INTERPRETER = """#!/bin/sh
[ "$1" != --version ] || echo "Python 3.11.99"
echo "$0 $*" >> calls
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script and what it reads, beside a .venv made from the same files."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    interpreter = tmp_path / ".venv" / "bin" / "python"
    for name in FILES:
        for path in (tmp_path / name, tmp_path / ".venv" / ".uepo" / name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("the same\n")
    interpreter.parent.mkdir()
    interpreter.write_text(INTERPRETER)
    interpreter.chmod(0o755)
    return tmp_path


def setup(checkout: Path, env: str = ".venv", **variables: str) -> str:
    done = subprocess.run(
        ["bash", "scripts/setup.sh", env],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_a_venv_that_is_kept_says_so_to_who_names_a_python(checkout: Path) -> None:
    assert setup(checkout, PYTHON="") == ""
    (line,) = setup(checkout, PYTHON="python3.12").splitlines()
    assert line == (
        ".venv is kept, with Python 3.11.99; to build it anew: rm -r .venv, then "
        "make setup PYTHON=python3.12"
    )


def test_an_environment_of_conda_is_not_to_be_removed(checkout: Path) -> None:
    (checkout / ".venv").rename(checkout / "conda")
    assert setup(checkout, "conda", PYTHON="python3.12") == "conda is kept, with Python 3.11.99\n"


def test_only_a_new_version_of_the_project_keeps_the_venv_too(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text("another\n")
    first, last = setup(checkout, PYTHON="no-such-python").splitlines()
    assert first.startswith(".venv is kept, with Python 3.11.99; ") and last == ".venv is ready"
    calls = (checkout / "calls").read_text()
    assert "--no-deps --editable ." in calls and "venv --clear" not in calls


def test_make_names_no_python_of_its_own() -> None:
    """Else every call of make would speak of an interpreter that nobody chose."""
    done = subprocess.run(
        ["make", "--dry-run", "setup"], cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert "PYTHON=''" in done.stdout
