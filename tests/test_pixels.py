"""E6: exact cameras, honest encoders, and what the tables of distances say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusion_toys import check_golden
from torch import Tensor

from uepo_lib import jobs, latents, pixels, plotting, rendering
from uepo_lib.datasets import Normaliser
from uepo_lib.errors import UsageError
from uepo_lib.experiments import filming, pixels_measures
from uepo_lib.experiments import pixels as e6
from uepo_lib.figures import pixels as _figures  # noqa: F401 - registers the figures
from uepo_lib.hand import PEN
from uepo_lib.latents import PCA, Autoencoder, AutoencoderConfig
from uepo_lib.locomotion import HOPPER
from uepo_lib.runs import PURPOSE
from uepo_lib.statistics import VERDICT_SEEDS

drawn_here = pytest.mark.skipif(pixels.missing() is not None, reason=str(pixels.missing()))
WIDTH = pixels._width(pixels.WIDE)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spot(column: float, row: float, width: int = WIDTH, size: float = 6.0) -> Tensor:
    """A bright round spot on black, its centre away from the picture's middle: (1, w, w)."""
    place = torch.arange(width) + 0.5 - width / 2
    far = (place[None, :] - column) ** 2 + (place[:, None] - row) ** 2
    return (200 * torch.exp(-far / (2 * size**2))).round().to(torch.uint8)[None]


def centre(frame: Tensor) -> tuple[float, float]:
    """Column and row of the brightness's centre, from the middle, in pixels of the frame."""
    weights = frame.double() / frame.double().sum()
    place = torch.arange(pixels.SIDE) + 0.5 - pixels.SIDE / 2
    return float((weights.sum(0) * place).sum()), float((weights.sum(1) * place).sum())


# -- cameras


def test_a_still_camera_takes_the_middle_of_the_wide_picture() -> None:
    wide = torch.randint(256, (2, WIDTH, WIDTH), generator=generator(), dtype=torch.uint8)
    seen = pixels.look(wide, pixels.constant((2,)))
    shown = pixels.SAMPLES * pixels.SIDE
    edge = (WIDTH - shown) // 2
    middle = wide[:, edge : edge + shown, edge : edge + shown].double()
    blocks = middle.view(2, pixels.SIDE, 2, pixels.SIDE, 2).mean(dim=(2, 4))
    assert (seen.double() - blocks).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    "motion", [(3.0, 0.0, 1.0, 0.0), (0.0, -2.5, 1.0, 0.0), (0, 0, 1.2, 0), (0, 0, 1, 10.0),
               (2.0, 1.0, 0.9, -7.0)]
)  # fmt: skip
def test_a_moved_camera_moves_a_spot_as_the_formula_says(
    motion: tuple[float, float, float, float],
) -> None:
    column, row = 9.0, -5.0  # in a frame's pixels
    wide = spot(pixels.SAMPLES * column, pixels.SAMPLES * row)
    found = centre(pixels.look(wide, torch.tensor([motion]))[0])
    right, down, zoom, roll = motion
    turn = np.deg2rad(roll)
    back = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    expected = zoom * back @ np.array([column - right, row - down])
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_a_motion_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="motion"):
        pixels.look(spot(0, 0), torch.zeros(2, 4))


def test_motions_are_what_their_names_say() -> None:
    shape = (2, 3, 4)
    assert torch.equal(pixels.constant(shape)[1, 2, 3], torch.tensor(pixels.STILL))
    panned = pixels.pan(shape, 0.5)
    assert panned[..., 0].diff(dim=-1).eq(0.5).all() and panned[..., 1].eq(0).all()
    shaken = pixels.shake((500, 4), 0.7, generator())
    assert shaken[..., :2].std().item() == pytest.approx(0.7, rel=0.05)
    assert torch.equal(shaken[..., 2:], pixels.constant((500, 4))[..., 2:])
    states = np.zeros((1, 2, 12))
    states[0, 1, 0] = 0.25
    assert pixels.track(states, 32.0)[0, :, 0].tolist() == [0.0, 8.0]
    with pytest.raises(UsageError, match="size"):
        pixels.shake(shape, 0.0, generator())


def test_the_robot_travels_by_its_velocity_and_stays_where_it_ended() -> None:
    states = torch.zeros(1, 1, 5, 11)
    states[..., 5] = torch.tensor([1.0, 3.0, 1.0, 1.0, 1.0])  # m/s
    made = pixels.simulator_states(
        HOPPER, Normaliser(torch.zeros(11), torch.ones(11)), states, torch.tensor([[3]])
    )
    expected = HOPPER.step_seconds * np.array([0.0, 2.0, 4.0, 5.0, 5.0])
    np.testing.assert_allclose(made[0, 0, :, 0], expected)
    np.testing.assert_array_equal(made[0, 0, :, 6], [1, 3, 1, 1, 1])


def test_a_robot_that_observes_too_little_is_refused() -> None:
    sizes = torch.zeros(PEN.state_dim), torch.ones(PEN.state_dim)
    with pytest.raises(UsageError, match="does not determine"):
        pixels.simulator_states(
            PEN, Normaliser(*sizes), torch.zeros(1, 3, PEN.state_dim), torch.tensor([2])
        )


def poses(count: int) -> np.ndarray:
    """Hopper bent a little more in each, its velocities 0: (count, 12)."""
    found = np.zeros((count, 12))
    found[:, 1], found[:, 3] = 1.25, -np.linspace(0, 1, count)
    return found


@drawn_here
def test_frames_are_the_same_every_time_and_show_no_velocity() -> None:
    still = poses(2)
    moving = still.copy()
    moving[:, 6:] = 5.0
    one, again, other = (pixels.frames(HOPPER, states) for states in (still, still, moving))
    assert torch.equal(one, again) and torch.equal(one, other)
    assert one.shape == (2, pixels.SIDE, pixels.SIDE) and one.dtype == torch.uint8
    assert not torch.equal(one[0], one[1])


@drawn_here
def test_the_wide_picture_looked_at_is_what_the_renderer_draws_for_the_moved_camera() -> None:
    """The oracle is MuJoCo with its own camera moved; edges may fall on another sample."""
    states = poses(1)
    wide = pixels.frames(HOPPER, states, pixels.WIDE)
    camera = pixels.standing_camera(HOPPER)
    x, y, z = camera.lookat
    for right, down, zoom, error in ((4.0, 0, 1.0, 0.01), (0, -3.0, 1.0, 0.01), (0, 0, 1.25, 0.2)):
        metre = pixels.pixels_per_metre(HOPPER)
        side = camera.extent[0] / zoom
        moved = replace(
            camera, lookat=(x + right / metre, y, z - down / metre), extent=(side, side)
        )
        width = pixels._width(1.0)
        direct = rendering.frames(HOPPER, states, (width, width), moved).images.mean(axis=-1)
        small = direct.reshape(pixels.SIDE, 2, pixels.SIDE, 2).mean(axis=(1, 3))
        seen = pixels.look(wide, torch.tensor([[right, down, zoom, 0.0]]))[0].double().numpy()
        unmoved = pixels.look(wide, pixels.constant((1,)))[0].double().numpy()
        assert np.abs(seen - small).mean() < error * np.abs(unmoved - small).mean()


# -- encoders


TINY = AutoencoderConfig(3, (4, 8, 8), num_updates=80, batch_size=16, learning_rate=1e-2)


def spots(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frames (count, SIDE, SIDE) of one spot, and its place (count, 2)."""
    places = 30 * torch.rand(count, 2, generator=generator(seed)) - 15
    frames = [spot(float(c), float(r), pixels.SIDE, 8.0) for c, r in places]
    return torch.cat(frames), places


def test_training_explains_pictures_and_repeats_itself() -> None:
    frames, _ = spots(64)
    one, again = (latents.train_autoencoder(TINY, frames, seed=1, progress=False) for _ in "ab")
    assert torch.equal(one.encode(frames), again.encode(frames))
    mean = frames.float().mean(dim=0)
    before = latents.untrained(TINY, frames, 1)
    errors = [latents.unexplained(frames, m.decode(m.encode(frames)), mean) for m in (before, one)]
    assert errors[1] < 0.6 < errors[0]
    assert latents.unexplained(frames, mean.expand_as(frames), mean) == pytest.approx(1.0)
    assert not torch.equal(before.encode(frames), latents.untrained(TINY, frames, 2).encode(frames))


def test_golden_of_the_autoencoder() -> None:
    cfg = AutoencoderConfig(3, (2, 4, 4), num_updates=6, batch_size=8, learning_rate=1e-2)
    frames, _ = spots(24)
    model = latents.train_autoencoder(cfg, frames, seed=1, progress=False)
    drawn, pca = model.decode(model.encode(frames)), PCA.of(frames, 2)
    errors = [
        latents.unexplained(frames, d, model.mean) for d in (drawn, pca.decode(pca.encode(frames)))
    ]
    found = {
        "codes": model.encode(frames[:6]), "random": latents.untrained(cfg, frames, 1).encode(
            frames[:6]
        ), "unexplained": torch.tensor(errors),
    }  # fmt: skip
    check_golden("latents", found, latents.REVISION, atol=2e-3)


def test_latents_are_standardised_in_any_shape() -> None:
    frames, _ = spots(24)
    model = latents.untrained(TINY, frames, 0)
    codes = model.encode(frames.view(2, 3, 4, pixels.SIDE, pixels.SIDE))
    assert codes.shape == (2, 3, 4, 3)
    flat = codes.flatten(0, 2)
    torch.testing.assert_close(flat.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.std(0), torch.ones(3), atol=1e-3, rtol=0)
    restored = Autoencoder(TINY, 5)
    restored.load_state_dict(model.state_dict())
    assert torch.equal(restored.eval().encode(frames), flat)


def test_pca_is_the_singular_value_decomposition() -> None:
    frames, _ = spots(20)
    pca = PCA.of(frames, 4)
    centred = (frames.flatten(1).double() - frames.flatten(1).double().mean(0)).numpy()
    _, values, right = np.linalg.svd(centred, full_matrices=False)
    found = pca.components.double().numpy()
    np.testing.assert_allclose(np.abs((found * right[:4]).sum(1)), 1, atol=1e-4)
    np.testing.assert_allclose(pca.std.numpy(), values[:4] / math.sqrt(19), rtol=1e-4)
    whole = PCA.of(frames, 19)
    torch.testing.assert_close(whole.decode(whole.encode(frames)), frames.float(), atol=0.1, rtol=0)
    torch.testing.assert_close(pca.encode(frames).std(0), torch.ones(4), atol=1e-3, rtol=0)


def test_a_probe_finds_what_is_linear_and_nothing_else() -> None:
    features = torch.randn(400, 3, generator=generator())
    noise = torch.randn(400, 1, generator=generator(1))
    targets = torch.cat([features[:, :1] - 2 * features[:, 2:] + 7, noise], dim=1)
    r2 = latents.probe((features[:200], targets[:200]), (features[200:], targets[200:]))
    assert r2[0] > 0.999 and abs(float(r2[1])) < 0.1


@pytest.mark.parametrize(
    ("config", "name"),
    [({"latent_dim": 0}, "latent_dim"), ({"channels": ()}, "channels"),
     ({"channels": (1,) * 7}, "channels"), ({"learning_rate": 0.0}, "learning_rate")],
)  # fmt: skip
def test_bad_settings_are_named(config: dict, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        AutoencoderConfig(**config)
    with pytest.raises(UsageError, match="train"):
        latents.train_autoencoder(TINY, torch.zeros(1, 4, 4), seed=0)
    with pytest.raises(UsageError, match="dim"):
        PCA.of(spots(3)[0], 3)


# -- what is measured


def test_distances_are_those_of_plans() -> None:
    ways = torch.randn(4, 3, 6, 5, generator=generator())
    whole = filming.executed.plan_distances(ways, 0.3)
    for name, found in pixels_measures.distances(ways, 0.3).items():
        torch.testing.assert_close(found, whole[name])


def test_films_of_the_same_way_are_compared_with_each_other_alone() -> None:
    one = torch.randn(3, 2, 6, 4, generator=generator())
    equal = pixels_measures._repeats(one, one + 2.0, 0.0)
    assert equal["rms"] == pytest.approx(2.0) and equal["div"] == pytest.approx(0.0, abs=1e-5)


def test_a_change_stands_beside_its_code_in_units_of_its_spread() -> None:
    codes = torch.randn(3, 2, 6, 4, generator=generator()) * torch.tensor([1.0, 10.0, 0.1, 3.0])
    both = pixels_measures.with_change(codes)
    assert torch.equal(both[..., :4], codes[:, :, 1:])
    step = codes[:, :, 3] - codes[:, :, 2]
    ratio = both[:, :, 2, 4:] / step
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[..., 4:].flatten(0, 2).std(0), torch.ones(4))


def test_who_is_nearest() -> None:
    place = torch.tensor([0.0, 1.0, 3.0, 7.0])
    distance = (place[:, None] - place).abs()[:, :, None]
    moved = torch.tensor([0.0, 1.0, 1.5, 7.0])  # now 2 is nearest to 1, as 1 was to 2
    other = (moved[:, None] - moved).abs()[:, :, None]
    assert pixels_measures.same_nearest(distance, distance) == 1.0
    assert pixels_measures.same_nearest(distance, other) == 0.75


def tables(seeds: int, rms: float, div: float, rivals: float, floor: float) -> tuple:
    """Both tables with these ρ and this floor, and a small spread over seeds."""
    rows, moved = [], []
    for seed in range(seeds):
        wobble = 0.01 * (seed % 2)
        for name in (filming.LATENT, filming.RANDOM, filming.COMPONENTS):
            for distance, value in (("rms", rms), ("div", div)):
                rho = (value if name == filming.LATENT else rivals) + wobble * (
                    name == filming.LATENT
                )
                for truth in ("rms", "div"):
                    rows.append((seed, name, 1, "states", distance, truth, rho))
                    # what no claim is about
                    rows.append((seed, name, 2, "states", distance, truth, -rho))
                    rows.append((seed, name, 1, "positions", distance, truth, -rho))
        moved += [(seed, filming.LATENT, "shaking 1 px", d, floor + wobble) for d in ("div", "rms")]
    columns = ["seed", "representation", "frames", "of", "distance", "truth", "rho"]
    return (
        pd.DataFrame(rows, columns=columns),
        pd.DataFrame(moved, columns=["seed", "representation", "motion", "distance", "floor"]),
    )


@pytest.mark.parametrize(
    ("values", "label"),
    [((0.9, 0.6, 0.5, 2.0), "supported"), ((0.3, 0.6, 0.5, 0.1), "not supported")],
)
def test_verdicts_follow_the_tables(values: tuple, label: str) -> None:
    found = e6.claims(*tables(VERDICT_SEEDS, *values))
    assert [v.partition(" (")[0] for v in found["verdict"]] == [label] * 5
    few = e6.claims(*tables(3, *values))
    assert all(v.startswith("inconclusive") for v in few["verdict"])


@pytest.mark.parametrize(("rivals", "met"), [(0.2, True), (0.6, False)])
def test_the_learned_code_is_set_beside_its_rivals(rivals: float, met: bool) -> None:
    text = e6.beside_rivals(tables(3, 0.4, 0.1, rivals, 1.0)[0])
    ahead = f"and the latent is ahead in {3 if met else 0} of 3"
    assert f"a random encoder's {rivals:.2f}, {ahead}" in text
    assert ("**as expected**" in text) == met and ("**not as expected**" in text) != met


def test_the_expected_correlation_is_drawn_where_it_was_expected() -> None:
    table = tables(3, 0.4, 0.1, 0.2, 1.0)[0].assign(low=0.0, high=0.5, nearest=0.3, chance=0.2)
    figure = plotting.draw("15_agreement", table)
    expected = f"expected: ρ > {e6.AGREES:g}"
    named = [[line.get_label() for line in axes.lines].count(expected) for axes in figure.axes]
    assert named == [1, 0, 0, 0, 0, 0]


def test_a_code_that_is_the_truth_keeps_an_empty_place() -> None:
    table = tables(3, 0.4, 0.1, 0.2, 1.0)[0].assign(low=0.0, high=0.5, nearest=0.3, chance=0.2)
    table = table.replace({"representation": {filming.RANDOM: filming.POSITIONS}})
    itself = (table["of"] == "positions") & (table["representation"] == filming.POSITIONS)
    figure = plotting.draw("15_agreement", table[~itself])
    names = [[t.get_text() for t in axes.get_xticklabels()] for axes in figure.axes]
    assert all(row == names[0] for row in names) and filming.POSITIONS in names[0]
    assert [len(axes.texts) for axes in figure.axes] == [0, 0, 0, 1, 1, 1]


def test_cameras_have_one_scale_and_a_key_to_their_seeds() -> None:
    ours = tables(3, 0.4, 0.1, 0.2, 1.0)[1]
    cameras = pd.concat([ours, ours.assign(representation=filming.PIXELS)])
    cameras["rho"] = np.where(cameras["distance"] == "div", -0.2, 0.5)
    figure = plotting.draw("15_cameras", cameras)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-3:] == ["seed 0", "seed 1", "seed 2"]
    places = {round(float(mark.get_offsets()[0, 0]), 6) for mark in figure.axes[0].collections}
    assert len(places) == cameras.groupby(["representation", "seed"]).ngroups


def test_what_can_be_read_off_is_compared_on_one_scale_to_1() -> None:
    rows = [(s, name, frames, 0.8, 0.3)
            for s in range(2) for name in (filming.LATENT, filming.RANDOM, filming.COMPONENTS)
            for frames in (1, 2)]  # fmt: skip
    columns = ["seed", "representation", "frames", "positions", "velocities"]
    table = pd.DataFrame(rows, columns=columns)
    limits = [axes.get_ylim() for axes in plotting.draw("15_probes", table).axes]
    assert limits[0] == limits[1] and limits[0][0] <= 0 and limits[0][1] == 1


def test_a_table_without_a_shaking_camera_is_refused() -> None:
    agreement, cameras = tables(3, 0.9, 0.6, 0.5, 2.0)
    with pytest.raises(UsageError, match="shaking"):
        e6.claims(agreement, cameras.assign(motion="still"))


# -- without a camera


def test_without_opengl_nothing_runs_and_nothing_is_invented(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(rendering.VARIABLE, "matplotlib")
    assert e6.run("smoke") is None
    printed = capsys.readouterr().out
    assert printed.startswith("not run: ") and "matplotlib" in printed and "EGL" in printed
    with pytest.raises(UsageError, match="OpenGL"):
        pixels.renderer()
    measured: list[object] = []
    monkeypatch.setattr(e6, "measure", measured.append)
    jobs.compute("hopper-medium", "pixels", 0, "smoke")
    assert measured == [] and PURPOSE.get() == ""


def test_runs_are_computed_for_the_job_that_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setitem(jobs.JOBS, "pixels", lambda study: seen.append(PURPOSE.get()))
    jobs.compute("hopper-medium", "pixels", 0, "smoke")
    assert seen == ["pixels"] and PURPOSE.get() == ""


def test_an_unusable_renderer_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rendering.VARIABLE, "eggl")
    assert "egl" in str(pixels.missing())
    monkeypatch.setenv(rendering.VARIABLE, "egl")
    monkeypatch.setattr(rendering, "works", lambda name: False)
    assert "does not work" in str(pixels.missing())


def test_bad_grids_are_named() -> None:
    for name, changes in {
        "starts": {"starts": 1}, "camera_starts": {"camera_starts": 99},
        "train_frames": {"train_frames": 20}, "shakes": {"shakes": ()},
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=name):
            filming.PixelGrid(**changes)
    with pytest.raises(UsageError, match="profile"):
        filming.grid_of("desktop")
