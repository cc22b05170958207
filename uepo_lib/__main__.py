"""``python -m uepo_lib``."""

import sys

from uepo_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
