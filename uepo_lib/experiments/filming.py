"""What E6 films, and the runs that it consists of: frames, and an autoencoder of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from torch import Tensor

from uepo_lib import datasets, executed, latents, pixels, profiles
from uepo_lib.errors import check
from uepo_lib.executed import Executed
from uepo_lib.guided_sets import GuidedRobot
from uepo_lib.latents import PCA, Autoencoder, AutoencoderConfig, Encode
from uepo_lib.robots import Array
from uepo_lib.runs import Run
from uepo_lib.stages import Product, Study

TASK = "hopper-medium"
HORIZON = 16
POSITIONS, LATENT, RANDOM, COMPONENTS, PIXELS = (
    "positions", "learned latent", "random encoder", "PCA", "pixels"
)  # fmt: skip
"""``positions``: no picture, the observed positions themselves; what a frame can show at best."""


@dataclass(frozen=True)
class PixelGrid:
    """How much is filmed, and how far the camera is moved (in pixels of a frame)."""

    starts: int = 16
    camera_starts: int = 8
    train_frames: int = 3_000
    shakes: tuple[float, ...] = (0.05, 0.25, 1.0)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)

    def __post_init__(self) -> None:
        check(self.starts >= 2, "starts", self.starts, "at least 2, for an interval")
        within = 2 <= self.camera_starts <= self.starts
        check(within, "camera_starts", self.camera_starts, f"from 2 to starts={self.starts}")
        enough = self.train_frames > 2 * self.autoencoder.latent_dim
        check(enough, "train_frames", self.train_frames, "more than twice the latent's dimension")
        check(len(self.shakes) > 0 and min(self.shakes) > 0, "shakes", self.shakes, "positive")


GRIDS = {
    "smoke": PixelGrid(4, 2, 200, autoencoder=AutoencoderConfig(4, (4, 8, 8, 8), 30)),
    "laptop": PixelGrid(),
    "full": PixelGrid(32, 16, 10_000, autoencoder=AutoencoderConfig(num_updates=5_000)),
    "paper": PixelGrid(32, 16, 10_000, autoencoder=AutoencoderConfig(num_updates=5_000)),
}


def grid_of(profile: str) -> PixelGrid:
    """The grid of ``profile``; ``UsageError`` for a profile without one."""
    return profiles.entry(GRIDS, profile)


@dataclass(frozen=True)
class Filmed:
    """What one seed's film consists of, nothing computed before it is asked for."""

    study: Study
    grid: PixelGrid
    ways: Product[Executed]
    frames: Product[dict[str, Tensor]]
    """"train" (M, 2, h, w) of D and "still" (n, B, T, h, w) of what was executed, uint8; "states"
    (M, S) of D, see ``pixels.Logged``."""
    autoencoder: Product[Autoencoder]

    def seen(self, starts: int | None = None) -> Executed:
        """The trajectories that are filmed: those of the first starts."""
        return first(self.ways.value, starts or self.grid.starts)

    @property
    def train(self) -> Tensor:
        """All frames of D: (2M, h, w)."""
        return self.frames.value["train"].flatten(0, 1)

    def encoders(self) -> dict[str, Encode]:
        """Every way to turn frames into numbers."""
        train, cfg = self.train, self.grid.autoencoder
        random = latents.untrained(cfg, train, self.study.seed)
        return {
            LATENT: self.autoencoder.value.encode,
            RANDOM: random.encode,
            COMPONENTS: PCA.of(train, cfg.latent_dim).encode,
            PIXELS: latents.as_pixels,
        }


def film(study: Study, grid: PixelGrid | None = None) -> Filmed:
    """The runs "frames" and "autoencoder" of one seed; ``UsageError`` where nothing can draw."""
    grid = grid or grid_of(study.profile)
    ways = GuidedRobot(study).trajectories(HORIZON)["unguided"]
    name = pixels.renderer()

    def draw(run: Run) -> None:
        generator, count = study.generator("frames"), grid.train_frames // 2
        logged = pixels.logged_pairs(study.dataset, count, HORIZON, generator)
        train = pixels.frames(study.task.robot, logged.poses)
        still = photographed(study, first(ways.value, grid.starts))
        run.save_tensors({"train": train, "states": logged.states, "still": still}, "film")

    config = {
        "starts": grid.starts, "train": grid.train_frames, "side": pixels.SIDE, "renderer": name
    }  # fmt: skip
    frames = study.stage(
        "frames", config, draw, lambda run: run.tensors("film"),
        (datasets, pixels, executed), (ways,), "under a minute",
    )  # fmt: skip

    def train(run: Run) -> None:
        model = latents.train_autoencoder(
            grid.autoencoder, frames.value["train"].flatten(0, 1), seed=study.seed, recorder=run,
            progress=study.progress,
        )  # fmt: skip
        run.save_tensors(model.state_dict())

    def read(run: Run) -> Autoencoder:
        model = Autoencoder(grid.autoencoder, study.seed)
        model.load_state_dict(run.tensors())
        return model.eval()

    autoencoder = study.stage(
        "autoencoder", {"autoencoder": asdict(grid.autoencoder)}, train, read, (latents,),
        (frames,), "about a minute",
    )  # fmt: skip
    return Filmed(study, grid, ways, frames, autoencoder)


def first(ways: Executed, count: int) -> Executed:
    """The first ``count`` starts; ``UsageError`` if fewer were played."""
    played = ways.states.shape[1]
    check(count <= played, "starts", count, f"at most {played}, which were played")
    return Executed(ways.plans[:, :count], ways.states[:, :count], ways.lengths[:, :count])


def photographed(study: Study, seen: Executed, wide: float = 1.0) -> Tensor:
    """Pictures of all trajectories: (n, B, T, SIDE, SIDE) uint8, or wider ones as they are."""
    return pixels.frames(study.task.robot, poses(study, seen), wide)


def poses(study: Study, seen: Executed) -> Array:
    """The simulator's states along the trajectories: (n, B, T, nq + nv)."""
    return pixels.simulator_states(
        study.task.robot, study.dataset.normaliser, seen.states, seen.lengths
    )
