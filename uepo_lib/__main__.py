"""``python -m uepo_lib``."""

import sys

from uepo_lib.cli import main

sys.exit(main())
