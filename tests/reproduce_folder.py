"""A process of the tests: ``uepo reproduce`` on a folder of small notebooks, with no data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from uepo_lib import cli, reproduce

if __name__ == "__main__":  # workers import this file
    whole = reproduce.reproduce

    def small(profile: str, *_: Any, **__: Any) -> Any:
        return whole(profile, folder=Path(sys.argv[1]), prepare=lambda profile: None)

    reproduce.reproduce = small
    sys.exit(cli.main(["reproduce", "--profile", "smoke"]))
