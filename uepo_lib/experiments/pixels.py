"""E6: does the divergence carry over to pixels? (Open question 3.)

Sub-policies act from the same logged states. How far their executed trajectories (ways, below) are
apart is known: div and RMS distance of the standardised states (``executed.py``). The same ones are
filmed, each frame is encoded, and the same two distances are taken of the encoded sequences. Do
they rank the pairs of sub-policies as the states do, and do they agree on who is nearest, which is
what guidance asks?

**Expected** before any of it was computed: the latent's RMS distance ranks pairs as the states' RMS
distance does (ρ > 0.7); its div agrees less with the states' div, because second differences
amplify what the encoder gets wrong from frame to frame; a learned latent agrees better than a
random encoder and than principal components; a camera that shakes by a pixel makes equal ways
differ by half of what different ways do, or more.

Added after a first look at one seed, and in no claim: the codes with their change since the frame
before, agreement with the states' positions alone, and a shake of 0.05 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from uepo_lib import executed, latents, pixels, profiles, statistics
from uepo_lib.errors import check
from uepo_lib.experiments import pixels_measures
from uepo_lib.experiments.filming import (
    COMPONENTS,
    LATENT,
    RANDOM,
    TASK,
    Filmed,
    PixelGrid,
    film,
    grid_of,
)
from uepo_lib.experiments.pixels_measures import agreement, cameras, probes
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study

AGREES = 0.7
"""ρ above which a distance of pictures is taken to rank pairs as the states do."""
NOISY = 0.5
"""The share of the distance between different trajectories at which a camera hides it."""

TABLES = ("agreement", "cameras", "probes")


def measure(study: Study, grid: PixelGrid | None = None) -> Product[dict[str, pd.DataFrame]]:
    """One seed's :data:`TABLES`, made by :func:`agreement`, :func:`cameras` and :func:`probes`."""
    grid = grid or grid_of(study.profile)
    found = film(study, grid)

    def produce(run: Run) -> None:
        makers: dict[str, Callable[[Filmed], Iterator[dict[str, Any]]]] = {
            "agreement": agreement, "cameras": cameras, "probes": probes
        }  # fmt: skip
        for name in TABLES:
            for row in makers[name](found):
                run.table(name).append({"seed": study.seed, **row})

    config = {"camera_starts": grid.camera_starts, "shakes": grid.shakes}
    return study.stage(
        "pixels", config, produce, lambda run: {name: run.table(name).frame() for name in TABLES},
        (pixels, latents, executed, pixels_measures),
        (found.ways, found.frames, found.autoencoder), "a minute",
    )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Every seed's tables together, and the runs that they come from."""

    agreement: pd.DataFrame
    cameras: pd.DataFrame
    probes: pd.DataFrame
    runs: list[Run]
    films: list[Filmed]


def run(profile: str, grid: PixelGrid | None = None) -> Found | None:
    """Every seed of ``profile``, or None with a printed reason where no frames can be drawn."""
    reason = pixels.missing()
    if reason:
        print(f"not run: {reason}")
        return None
    studies = [
        Study(TASK, seed, profile, progress=False) for seed in profiles.budget(profile).seeds
    ]
    products = [measure(study, grid) for study in studies]
    joined = {
        name: pd.concat([p.value[name] for p in products], ignore_index=True) for name in TABLES
    }
    runs, films = [p.run for p in products], [film(study, grid) for study in studies]
    return Found(joined["agreement"], joined["cameras"], joined["probes"], runs, films)


def beside_rivals(agreement: pd.DataFrame) -> str:
    """The learned latent's RMS distance beside the codes that it was expected to beat, in words:
    mean ρ with the states' own, from one frame."""
    like = agreement[(agreement["distance"] == "rms") & (agreement["truth"] == "rms")]
    like = like[(like["frames"] == 1) & (like["of"] == "states")]
    rho = like.pivot(index="seed", columns="representation", values="rho")
    told = []
    for rival, name in ((RANDOM, "a random encoder"), (COMPONENTS, "PCA")):
        ahead = int((rho[LATENT] > rho[rival]).sum())
        told.append(
            f"{name}'s {rho[rival].mean():.2f}, and the latent is ahead in {ahead} of {len(rho)} "
            "seeds"
        )
    beaten = bool((rho[LATENT].mean() > rho[[RANDOM, COMPONENTS]].mean()).all())
    return (
        f"The learned latent was expected to beat codes that learn less. Its RMS has ρ = "
        f"{rho[LATENT].mean():.2f}, {'; '.join(told)}: **{'' if beaten else 'not '}as expected**, "
        "by the means."
    )


def claims(agreement: pd.DataFrame, cameras: pd.DataFrame) -> pd.DataFrame:
    """What the expectation says, with the gain of each seed over its threshold and a verdict.

    Pure function of the two tables; columns claim, gains (a list, one a seed), verdict. A claim is
    that its gain is positive (``statistics.verdict``).
    """
    like = agreement[agreement["distance"] == agreement["truth"]]
    like = like[(like["frames"] == 1) & (like["of"] == "states")]
    rho = like.set_index(["seed", "representation", "distance"])["rho"].unstack([1, 2])
    shaken = cameras[cameras["motion"] == "shaking 1 px"]
    floor = shaken[shaken["representation"] == LATENT]
    check(len(floor) > 0, "cameras", "no camera shaking by 1 px", "one")
    noise = floor.set_index(["seed", "distance"])["floor"].unstack("distance")
    gains = {
        f"latent RMS ranks pairs as the states' (ρ > {AGREES})": rho[LATENT, "rms"] - AGREES,
        "latent div agrees less than latent RMS": rho[LATENT, "rms"] - rho[LATENT, "div"],
        "learned latent better than a random encoder (RMS)": (
            rho[LATENT, "rms"] - rho[RANDOM, "rms"]
        ),
        "learned latent better than PCA (RMS)": rho[LATENT, "rms"] - rho[COMPONENTS, "rms"],
        f"a shake of 1 px costs {NOISY:.0%} of the div": noise["div"] - NOISY,
    }
    rows = [(name, g.tolist(), statistics.verdict(g.tolist())) for name, g in gains.items()]
    return pd.DataFrame(rows, columns=["claim", "gains", "verdict"])
