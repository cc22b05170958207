"""Known notices are kept quiet, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from uepo_lib import notices, tasks


def said(program: str, *folders: Path) -> str:
    """What a fresh Python prints to stderr."""
    places = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": places},
    )  # fmt: skip
    return done.stderr


def test_the_hand_is_made_without_a_word() -> None:
    assert said("from uepo_lib.hand import PEN; PEN.make().close()") == ""


def test_what_else_a_package_prints_passes(tmp_path: Path) -> None:
    lines = [f"{notices.PRINTED[0]} environment's reward functions were updated", "something else"]
    module = f"import sys\nfor line in {lines!r}: print(line, file=sys.stderr)\n"
    (tmp_path / "talkative.py").write_text(module)
    heard = said("from uepo_lib import notices; notices.imported('talkative')", tmp_path)
    assert heard.splitlines() == ["something else"]


def test_what_a_failing_package_printed_passes(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import sys\nprint('why', file=sys.stderr)\n1 / 0\n")
    program = """
from uepo_lib import notices
try:
    notices.imported('broken')
except ZeroDivisionError:
    pass
"""
    assert said(program, tmp_path).splitlines() == ["why"]


@pytest.mark.filterwarnings("error")
def test_v4_is_taken_on_purpose() -> None:
    tasks.get("hopper-medium@d4rl").robot.make().close()


def test_other_warnings_pass() -> None:
    with pytest.warns(DeprecationWarning, match="Ant-v4"), notices.without_known_warnings():
        gymnasium.make("Ant-v4").close()
