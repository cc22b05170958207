"""Each method reads like its algorithm; a product is computed when it is first asked for.

UEPO's choice of π* is the exception: what follows is named after it, so it is made at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from uepo_lib.methods.bc import bc
from uepo_lib.methods.iql import iql
from uepo_lib.methods.uepo import UEPOConfig, uepo
from uepo_lib.methods.uni_o4 import uni_o4
from uepo_lib.stages import Study

METHODS: Mapping[str, Callable[[Study], Any]] = {
    "uepo": uepo,
    "uepo-ppo": partial(uepo, config=UEPOConfig(offline_improvement="ppo")),
    "uni-o4": uni_o4,
    "bppo": partial(uni_o4, n=1),
    "iql": iql,
    "bc": bc,
}
"""What the command line can run; each result has ``online``, the policy's last form."""
