# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 15 · Pixels: does the divergence carry over to pictures? (E6)
#
# **Question.** The divergence needs velocities and accelerations. A robot with a camera has neither
# joint angles nor their rates. Can the same formula be used on what a picture is encoded to?
#
# **Paper.** Open question 3: visual observations. Nothing is measured there. Its formula,
#
# $$\mathrm{div}(a_i, a_j) = \frac1T\sum_t\Big(\|\dot a_{i,t}-\dot a_{j,t}\|_2
#   + \big(1-\cos(\ddot a_{i,t},\ddot a_{j,t})\big)\Big),$$
#
# asks only for sequences of vectors (A4), so latents will do.
#
# **Our choices.** Hopper's sub-policies act for 16 steps from the same logged states, as in
# [04](04_divergence.ipynb). The truth is how far apart their *states* go. The same executed
# trajectories (*ways* in the expectation below) are filmed at 64 × 64 in grey by a camera that
# stands where each began. Four codes of a frame are compared: a small autoencoder trained here on
# frames of $D$, its encoder untrained, as many principal components, and the pixels themselves. A
# fifth, the observed *positions* without velocities, is the most that a frame can show.
#
# **Run time** about 20 seconds at `smoke`, about five minutes at `laptop`, beyond shared models.
#
# **Inputs.** The diffusion policy of Hopper-medium; OpenGL (EGL or OSMesa) for the frames. Without
# it the notebook says so and shows the toys only.
#
# **Outputs.** Four figures, three of them with their tables, and a table of verdicts.

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop

# %%
import numpy as np
import torch
from IPython.display import Markdown

from uepo_lib import divergence, notebook, pixels
from uepo_lib.experiments import filming
from uepo_lib.experiments import pixels as e6
from uepo_lib.figures.pixels import film_figure

# %%
drawn = ("agreement", "probes", "cameras")
outputs = [p for d in drawn for p in (f"figures/15_{d}.png", f"tables/15_{d}.csv")]
outputs += ["figures/15_film.png", "tables/15_claims.csv"]
possible = pixels.missing() is None
here = notebook.start("15_pixels", profile, outputs if possible else [])

# %% [markdown]
# ## Concept: a distance of pictures is not a distance of places
#
# **What to ask yourself.** A bright spot moves along a line of pixels. By how much do two pictures
# differ when the spots are far apart, and by how much when they are twice as far?
#
# <details><summary>Answer</summary>
# By the same. Once two spots do not overlap, their pictures share nothing, wherever they are.
# </details>
#
# For a spot of width $w$ at $p$ or $q$ the squared distance is
# $\|g_p-g_q\|^2 = 2\|g\|^2\big(1-e^{-(p-q)^2/4w^2}\big)$: it grows as the square of $p-q$ and then
# stops. Ranks survive only among near things.


# %% tags=["nbval-check-output"]
def spot(place, width=2.0):
    """One row of a picture, 200 pixels wide."""
    return np.exp(-((np.arange(200) - 100 - place) ** 2) / (2 * width**2))


for gap in (1, 2, 4, 8, 16, 32):
    found = np.sum((spot(0) - spot(gap)) ** 2) / np.sum(spot(0) ** 2)
    exact = 2 * (1 - np.exp(-(gap**2) / (4 * 2.0**2)))
    print(f"{gap:2d} pixels apart: {found:.3f}")
    assert abs(found - exact) < 1e-6

# %% [markdown]
# ## Concept: what a difference does to an error
#
# A code is wrong by a little, anew in every frame. Differences from frame to frame hold the errors
# of two frames, second differences those of three. For errors of variance $\sigma^2$ that do not
# know of each other,
#
# $$\mathrm{Var}(\dot e) = 2\sigma^2,\qquad \mathrm{Var}(\ddot e) = (1 + 4 + 1)\,\sigma^2 .$$
#
# The motion itself shrinks by a factor of the control period with each difference. So div, which is
# made of differences, is where an encoder's errors and a shaking camera show first.

# %% tags=["nbval-check-output"]
kernel = torch.zeros(1, 9, 1)
kernel[0, 4] = 1.0  # an error in one frame
first, second = divergence.velocity(kernel), divergence.acceleration(kernel)
print("velocity: variance ×", int(first.square().sum()))
print("acceleration: variance ×", int(second.square().sum()))
assert (first.square().sum(), second.square().sum()) == (2, 6)

# %% [markdown]
# ## Concept: a camera that moves
#
# The camera is orthographic: a shift, a zoom and a roll of it are exactly maps of the picture. One
# wide picture, drawn once, is looked at from every camera (`pixels.look`). A camera that stands
# elsewhere moves all pictures alike. A camera that moves by $v$ pixels a frame takes $v$ from every
# velocity in the picture.

# %% tags=["nbval-check-output"]
width = round(pixels.SAMPLES * pixels.SIDE * pixels.WIDE)
place = torch.arange(width) + 0.5 - width / 2
wide = 200 * torch.exp(-(place[None] ** 2 + place[:, None] ** 2) / 72)  # a spot in the middle
film = wide.round().to(torch.uint8).expand(5, -1, -1)


def columns(frames):
    """Where the spot is, in pixels from the middle."""
    across = frames.double().sum(1)
    return (across * (torch.arange(pixels.SIDE) + 0.5 - pixels.SIDE / 2)).sum(1) / across.sum(1)


for name, motion in {"still": pixels.constant((5,)), "panning": pixels.pan((5,), 2.0)}.items():
    found = columns(pixels.look(film, motion)).round(decimals=2) + 0.0
    print(f"{name:8s}", found.tolist())
    assert torch.allclose(found, -motion[:, 0].double(), atol=0.02)

# %% [markdown]
# ## The film
#
# **Expectation**, written before the runs: the latent's plain distance (RMS) ranks pairs of ways as
# the states' RMS does ($\rho > 0.7$); its div agrees less with the states' div; a learned latent is
# better than a random encoder and than PCA; a camera that shakes by one pixel makes *equal* ways
# differ by half of what different ways do, or more.

# %%
found = e6.run(here.profile)
strip = found and film_figure(found.films[0])
if found:
    here.figure(strip, "15_film", found.runs[:1], task=filming.TASK)
strip

# %% [markdown]
# Frames hold no velocity: the same joint angles at rest and in motion are the same picture, bit for
# bit.

# %%
if found:
    data, robot = found.films[0].study.dataset, found.films[0].study.task.robot
    poses = data.simulator_states[:2].numpy().copy()
    half = poses.shape[1] // 2
    moving, resting = poses, np.concatenate([poses[:, :half], 0 * poses[:, half:]], axis=1)
    assert torch.equal(pixels.frames(robot, moving), pixels.frames(robot, resting))

# %% [markdown]
# ## What can be read off a code
#
# A linear map from the code to the joints' positions and velocities, learnt on frames of $D$ and
# tested on the filmed trajectories. With two frames, the code's change since the frame before is
# added. Thin lines are seeds, bold ones their means.

# %%
found and here.draw("15_probes", found.probes, found.runs, task=filming.TASK)

# %%
if found:
    r2 = found.probes.groupby(["representation", "frames"])[["positions", "velocities"]].mean()
    left = found.probes.groupby("representation")["unexplained"].mean()
    one, two = r2.loc[filming.LATENT, 1], r2.loc[filming.LATENT, 2]
    says = Markdown(
        f"From one frame the learned latent gives positions with R² = {one['positions']:.2f} and "
        f"velocities with {one['velocities']:.2f} (a gait couples the two); from two frames "
        f"velocities with {two['velocities']:.2f}. It leaves {left[filming.LATENT]:.0%} of the "
        f"filmed trajectories' pictures unexplained, PCA {left[filming.COMPONENTS]:.0%}."
    )
found and says

# %% [markdown]
# ## Agreement with the states
#
# Spearman's ρ over the pairs of sub-policies in a start state, averaged over starts, each distance
# of codes with the same distance of the states. A dot is a seed, its bar the 95 % interval over
# starts (Student's t). On the right, what guidance needs: do both name the same nearest neighbour?
# *Hollow*: the code's change since the frame before stands beside it, as velocities stand in a
# state. *Below*: agreement with the positions alone, which is what the encoder loses of what a
# frame can show. Both were added after a first look at one seed and are in no verdict.

# %%
found and here.draw("15_agreement", found.agreement, found.runs, task=filming.TASK)

# %%
if found:
    same = found.agreement[found.agreement["distance"] == found.agreement["truth"]]
    mean = same.groupby(["of", "representation", "frames", "distance"])[["rho", "nearest"]].mean()
    ours, place = mean.loc["states", filming.LATENT, 1], mean.loc["states", filming.POSITIONS, 1]
    pair = mean.loc["states", filming.LATENT, 2]
    says = Markdown(
        f"Of the learned latent, RMS has ρ = **{ours['rho']['rms']:.2f}** and div "
        f"**{ours['rho']['div']:.2f}** with the states' own; of the positions themselves, without "
        f"any picture, {place['rho']['rms']:.2f} and {place['rho']['div']:.2f}. With the latent's "
        f"change: {pair['rho']['rms']:.2f} and {pair['rho']['div']:.2f}. By div the latent names "
        f"the right nearest neighbour in {ours['nearest']['div']:.0%} of cases, the positions in "
        f"{place['nearest']['div']:.0%}, chance in {same['chance'].iloc[0]:.0%}."
    )
found and says

# %%
found and Markdown(e6.beside_rivals(found.agreement))

# %% [markdown]
# ### How large is what is to be seen?
#
# Trajectories that start in one state have little time to part. In pixels of a frame:

# %%
if found:
    one = found.films[0]
    x = torch.from_numpy(filming.poses(one.study, one.seen())[..., 0])
    i, j = torch.triu_indices(len(x), len(x), 1)
    metre = pixels.pixels_per_metre(one.study.task.robot)
    apart = metre * (x[i] - x[j]).abs().mean(dim=(0, 1))
    says = Markdown(
        f"Two trajectories are on average {apart[8]:.2f} pixels apart in x after half of their "
        f"steps and {apart[-1]:.2f} at their end, of {pixels.SIDE}."
    )
found and says

# %% [markdown]
# ## A camera that is not where it was
#
# The encoder learnt from a still camera. *Shifted*, *zoomed* and *rolled* cameras stand wrong;
# *panning* is alike in every film; *tracking* follows the torso, so each film has its own motion
# but the same one every time; *shaking* is drawn anew for each frame and film. The right panel
# compares two films of the **same** trajectory under a shaking camera with still films of different
# ones: above 1 (dotted) the camera outweighs the motion. A marker is a seed.
#
# In the table, means over seeds for the learned latent: `ratio` is the mean distance between
# different trajectories over that by the still camera; `rho` the rank correlation with the states'
# same distance; `floor` the mean distance between two films of one trajectory, over the still
# camera's between different ones. Cameras are tried on the first of the start states above, so the
# still camera's `rho` is not quite the one found with all of them.

# %%
found and here.draw("15_cameras", found.cameras, found.runs, task=filming.TASK)

# %%
if found:
    floors = found.cameras[found.cameras["representation"] == filming.LATENT]
    floors = floors.groupby(["motion", "distance"], sort=False)[["ratio", "rho", "floor"]].mean()
found and floors.unstack().round(2)

# %% [markdown]
# ## Verdicts
#
# The thresholds stood in `experiments/pixels.py` before the runs; a gain is what a seed has above
# its threshold.

# %%
if found:
    claims = e6.claims(found.agreement, found.cameras)
    shown = claims.assign(gains=[", ".join(f"{g:+.2f}" for g in row) for row in claims["gains"]])
    here.table(shown, "15_claims", found.runs, task=filming.TASK)
found and shown.style.hide(axis="index")

# %%
if found:
    still = found.cameras[found.cameras["motion"] == "still"]
    assert (still["ratio"] == 1).all() and (still["floor"] == 0).all()
    fixed = ~found.cameras["motion"].str.startswith("shaking")
    assert (found.cameras.loc[fixed, "floor"] == 0).all()  # a film repeats itself
    assert (found.cameras.loc[~fixed, "floor"] > 0).all()  # unless the camera does not
    assert set(found.agreement["seed"]) == set(here.budget.seeds)
    if here.profile != "smoke":
        velocities = r2["velocities"].loc[filming.LATENT]
        assert velocities[2] > velocities[1]

# %% [markdown]
# ## What fails
#
# - **A clean simulator.** One robot, one light, no background, nobody in the way, a sensor without
#   noise: a real camera is harder in every respect.
# - **These trajectories part by little.** The data have one mode, and they are short. Where
#   behaviours differ by more than the camera's grain and shake, a picture may rank them better. How
#   far small variations of one gait can be told apart at all, the positions' column says: they
#   leave velocities out as well, and a code of frames is to be measured by them.
# - **The encoder knows these states.** It is trained on the data that the policies come from.
# - **The pictures know something that the states leave out.** Hopper does not observe how far it
#   has travelled; a standing camera does.
# - **Renderers differ.** EGL and OSMesa draw edges differently, so the renderer's name is part of a
#   run's identity.
#
# **To try.** Fewer numbers a frame; is less of them noise? After
# `from uepo_lib.latents import AutoencoderConfig`:
# `e6.run(here.profile, filming.PixelGrid(autoencoder=AutoencoderConfig(latent_dim=8)))`.
