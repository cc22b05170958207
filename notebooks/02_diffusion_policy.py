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
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · The diffusion policy: a distribution over action sequences
#
# **Concept.** A diffusion policy does not output an action. It turns noise into a sequence of
# actions, step by step, looking at the state all the while. What it represents is the whole
# distribution $p_\theta(a_{1:T} \mid s)$ of what the data did in that state.
#
# **Question.** Why does another initial noise give another output from the same conditioned model?
#
# <details><summary>Answer</summary>
#
# Because a state does not determine an action: the data holds a distribution over sequences for
# it. The reverse process is a map that transports $N(0, I)$ onto that distribution, with the state
# as a parameter of the map. Deterministic sampling makes it a function: one noise, one output.
# Different noises are different points of the source, so they land at different points of the
# target, in proportions that match the data. If all noises gave one output, the model would have
# learnt a single action, which is what regression does. Where several modes exist, the source
# space is cut into basins, one for each mode; where one mode exists, the noise merely shifts the
# output within it.
# </details>
#
# | | |
# |---|---|
# | Paper | contribution 1: the state-conditional model $p_\theta(a_{1:T} \mid s_{1:T})$ |
# | Our choices | A1 (what the model sees), A2 (denoising steps as a temperature), A5 (likelihood) |
# | Expected run time | smoke: half a minute · laptop: one minute beyond the shared models |
# | Inputs | two datasets, Hopper medium and pen expert, and their diffusion models, one a seed |
# | Outputs | thirteen figures, each with its table, and two more tables |

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop
toy_updates: int = 500  # training steps of each toy model, some seconds

# %%
from dataclasses import replace

import pandas as pd
import torch
from IPython.display import Markdown

from uepo_lib import diagnostics, judging, notebook, toys
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, train_diffusion
from uepo_lib.figures import denoising, likelihood
from uepo_lib.figures import policy as views
from uepo_lib.stages import Study
from uepo_lib.subpolicies import SubPolicies, seeded_noise

# %%
on_toy = ["noise_schedule", "forward_noising", "reverse_chain", "toy_training", "toy_samples"]
on_toy += ["samplers", "prediction_types", "weight_averaging"]
on_robot = ["diffusion_training", "action_sequences", "denoising_steps"]
on_robot += ["likelihood_ranking", "likelihood_histogram"]
outputs = views.both(*on_toy, *on_robot)
outputs += ["tables/backbones.csv", "tables/toy_likelihood.csv"]
here = notebook.start("02_diffusion_policy", profile, outputs)
studies = [Study("hopper-medium", s, here.profile, progress=False) for s in here.budget.seeds]
models = [study.diffusion_policy() for study in studies]
runs = [model.run for model in models]

# %% [markdown]
# **One measured number.** In each of 64 logged states of Hopper, 16 noises give 16 outputs. Their
# standard deviation is set against that of the logged actions around the mean output of a chain of
# 50 steps: so much of the data's spread is kept. Section 7 says where the number comes from.

# %%
steps = [1, 2, 5, 10, 25, 50]
spread = pd.concat(
    views.spread_table(model.value, study.windows, steps, study.seed)
    for model, study in zip(models, studies, strict=True)
)
default = models[0].value.config.num_denoising_steps
kept = spread[spread.steps == default].ratio
Markdown(
    f"With the default of {default} denoising steps the sampler keeps "
    f"**{kept.mean():.0%}** of the data's standard deviation "
    f"(seeds: {', '.join(f'{r:.0%}' for r in kept)})."
)

# %% [markdown]
# ## 1 · Adding noise
#
# Training needs pairs of a clean sequence $x_0 = a_{t:t+T-1}$ and a spoilt one. Spoiling is a
# closed form at every level $k = 0, \dots, K - 1$, from the least noise to the most:
#
# $$x_k = \sqrt{\bar\alpha_k}\, x_0 + \sqrt{1 - \bar\alpha_k}\; \varepsilon,
# \qquad \varepsilon \sim N(0, I).$$
#
# The schedule $\bar\alpha_k$ falls from near one to near zero. We write $\alpha_k =
# \sqrt{\bar\alpha_k}$ and $\sigma_k = \sqrt{1 - \bar\alpha_k}$; DDPM's own $\alpha_k$ is another
# number. The library has the line as `Schedule.add_noise`, which is this and nothing else. $k = -1$
# means no noise: $x_0$ names the clean sequence, not that of level 0.

# %% tags=["nbval-check-output"]
toy = toys.four_modes()
exact = toys.exact_model(toy)
schedule = exact.schedule
for k in (-1, 0, 12, 25, 37, 49):
    at = torch.tensor([k])
    print(
        f"k = {k:>2}: signal {schedule.alpha(at).item():.3f}, noise {schedule.sigma(at).item():.3f}"
    )

# %%
every = torch.arange(-1, schedule.num_steps)
power = schedule.alpha(every) ** 2 + schedule.sigma(every) ** 2
assert torch.allclose(power, torch.ones_like(power), atol=1e-6)  # x_0 and ε share the unit power
assert (schedule.alpha_bar.diff() < 0).all()  # every step is noisier than the one before
here.draw("noise_schedule", views.schedule_table(50, ("cosine", "linear")), task="closed form")

# %% [markdown]
# **What to see.** The linear schedule, made for a thousand steps of an image, has destroyed most of
# the signal half-way; the cosine schedule spends its steps evenly. Both end in almost pure noise,
# so sampling may begin with $N(0, I)$.
#
# **A toy whose answer is known.** A point stands near the middle of the plane and walks to one of
# four doors, $a_t = w_t (\text{door}_m - s) + \text{noise}$, with a fixed profile $w_t$, slow at
# both ends, that covers the whole way in $T$ steps. The four modes, their weights and their width
# are exact, so the perfect denoiser is a closed form too (`toys.MixtureDenoiser`). Below, the same
# logged walks at four noise levels. Grey: in no mode's support.

# %%
logged = toy.batch(torch.arange(24))
epsilon = seeded_noise(24, 0, (8, 2))
noised = {
    "data" if k < 0 else f"k = {k}": (
        logged.past[:, -1],
        schedule.add_noise(logged.actions, epsilon, torch.tensor([k])),
    )
    for k in (-1, 5, 15, 30, 49)
}
assert toy.in_support(logged.actions, logged.past[:, -1]).all()
here.draw("forward_noising", views.walks_table(toy, noised), task="toy")

# %% [markdown]
# ## 2 · What the network learns
#
# The network sees $x_k$, $k$ and the state, and predicts the clean sequence. Training minimises
#
# $$L(\theta) = E_{x_0, \varepsilon, k}\; \lVert \hat x_0(x_k, k, s) - x_0 \rVert^2,$$
#
# whose minimiser is the posterior mean $E[x_0 \mid x_k, s]$ (DDPM, arXiv 2006.11239). We predict
# $x_0$ and not $\varepsilon$: where $k$ is large, $\hat x_0 = (x_k - \sigma_k \hat\varepsilon) /
# \alpha_k$ would multiply an error of the network by $1 / \alpha_k$. For our four doors the
# posterior mean weighs the doors by their responsibilities. Expect a guess at large $k$ and a
# decision at small $k$.

# %% tags=["nbval-check-output"]
walk, middle = toy.means(torch.zeros(1, 2))[:, 0], torch.zeros(1, 2)
for k in (49, 40, 30, 20, 10, 0):
    at = torch.tensor([k])
    x = schedule.add_noise(walk, epsilon[:1], at)
    shares = exact.denoiser.responsibilities(x, at, middle)[0]
    print(f"k = {k:>2}: belief in each door", [round(p, 2) + 0.0 for p in shares.tolist()])

# %% [markdown]
# Three things can be predicted, since any of them gives the other two: $x_0$, $\varepsilon$, or
# $v = \alpha \varepsilon - \sigma x_0$ (arXiv 2202.00512). They differ in what becomes of an error
# of the network: below, its size in $\hat x_0$ for an error of one.

# %% tags=["nbval-check-output"]
levels = torch.tensor([0, 12, 25, 37, 49])
gains = {kind: denoising.amplification(schedule, kind, levels) for kind in denoising.PREDICTIONS}
for kind, gain in gains.items():
    print(
        f"{kind:>7}:", {k: round(g, 2) for k, g in zip(levels.tolist(), gain.tolist(), strict=True)}
    )

# %%
alpha, sigma = schedule.alpha(levels).flatten(), schedule.sigma(levels).flatten()
assert torch.allclose(gains["x0"], torch.ones(5))  # its own unit, at every level
assert torch.allclose(gains["epsilon"], sigma / alpha, rtol=1e-4)  # without bound
assert torch.allclose(gains["v"], sigma, rtol=1e-4)  # never more than one

# %% [markdown]
# At the noisiest level the estimate is nearly the average of all four walks, which is standing
# still: what regression would output at once. The reverse process is what gets from there to a
# door.

# %% [markdown]
# ## 3 · The reverse process
#
# DDIM (arXiv 2010.02502) walks down the levels. At each, it reads off the noise that $\hat x_0$
# implies and mixes both again at the next lower level:
#
# $$\hat\varepsilon = \frac{x_k - \alpha_k \hat x_0}{\sigma_k}, \qquad
# x_{k'} = \alpha_{k'} \hat x_0 + \sigma_{k'} \hat\varepsilon .$$
#
# Nothing random is left, so the output is a function of the initial noise and the state. The four
# lines of the loop below are the equation, and equal `DiffusionModel.sample` bit for bit.

# %%
noise, past = seeded_noise(24, 1, (8, 2)), toy.past(torch.zeros(24, 2))
x = noise
for k, k_prev in torch.tensor(exact.timesteps(10))[:, :, None]:
    x0 = exact.predict_x0(x, k, past)
    implied = schedule.epsilon(x, x0, k)
    x = schedule.alpha(k_prev) * x0 + schedule.sigma(k_prev) * implied
assert torch.equal(x, exact.sample(noise, past, num_steps=10))
assert torch.equal(x, exact.sample(noise, past, num_steps=10))  # twice the same: no dice
print("levels visited:", [k for k, _ in exact.timesteps(10)])

# %%
chain = views.reverse_chain(exact, noise, past, num_steps=10)
panels = {
    name: (past[:, -1], x0) for i, (name, x0) in enumerate(chain.items()) if i in (0, 2, 4, 6, 9)
}
here.draw("reverse_chain", views.walks_table(toy, panels), task="toy")

# %% [markdown]
# **What to see.** Twenty-four noises, all in the same state. The estimates start close together
# in the middle, drift apart, and each settles on a door. Which one was decided by the noise alone,
# since everything else was equal. The next cell is the answer to the opening question in numbers.

# %% tags=["nbval-check-output"]
many = seeded_noise(1000, 2, (8, 2))
actions = exact.sample(many, toy.past(torch.zeros(1000, 2)), num_steps=10)
reached = toy.mode_of(actions)
print("doors of the first twelve noises:", reached[:12].tolist())
print("share of each door:", [round(float((reached == m).float().mean()), 2) for m in range(4)])

# %%
shares = torch.bincount(reached, minlength=4) / len(reached)
assert (shares - toy.weights).abs().max() < 0.05  # the proportions are the data's
assert toy.in_support(actions, torch.zeros(1000, 2)).float().mean() > 0.95

# %% [markdown]
# **DDPM beside DDIM.** DDPM (arXiv 2006.11239) takes the same $\hat x_0$ but draws fresh noise at
# every level. In `Schedule.step` both are one line with a parameter $\eta$ (not that of guidance):
# 0 is DDIM, 1 is DDPM. Expectation: the same initial noise gives one output under DDIM and several
# under DDPM. Both keep the modes; both lose spread when steps are few.

# %%
dice = torch.Generator().manual_seed(0)
first, second = (exact.sample(noise, past, 10, eta=1.0, generator=dice) for _ in range(2))
moved = float((toy.mode_of(first) != toy.mode_of(second)).float().mean())
assert moved > 0.3  # under DDPM a noise does not even belong to a door
samplers = denoising.samplers_table(toy, steps, std=0.3)
here.draw("samplers", samplers, task="toy")

# %% tags=["nbval-check-output"]
for name, part in samplers.groupby("sampler"):
    print(f"{name}, sd kept:", dict(zip(part.steps, part.spread.round(2), strict=True)))

# %%
kept_by = samplers.pivot(index="steps", columns="sampler", values="spread")
assert (kept_by.DDPM <= kept_by.DDIM + 1e-4).all()  # DDPM's posterior variance is the smallest
assert (samplers[samplers.steps >= 10].inside > 0.95).all()
Markdown(
    f"The same 24 noises, used twice: under DDPM {moved:.0%} of the walks go to another door the "
    f"second time, under DDIM none. At {default} steps DDIM keeps {kept_by.DDIM[default]:.0%} of "
    f"the spread and DDPM {kept_by.DDPM[default]:.0%}. A sub-policy is a noise that stays, "
    "so it needs DDIM."
)

# %% [markdown]
# ## 4 · The backbone, and what it may see
#
# The paper conditions on $s_{1:T}$. While acting, the states after now do not exist yet, so the
# default is (A1): past states are visible, future states are masked.
#
# ```
#  time            t-T_o+1 ... t-1   t  | t+1   t+2  ...  t+T-1
#  state tokens       s         s    s  |  s     s           s      Transformer, with a key mask
#                    └── past, seen ──┘ | └─ future: seen only when a logged sequence is scored
#  action tokens                     a     a     a           a      U-Net over time
#                                   └ T_a are executed ┘            then plan again
# ```
#
# By default $T = 8$ actions are planned, $T_a = 4$ of them are executed, and $T_o = 1$ state is
# seen: Hopper's is enough. The toy shows two, both the same.
#
# State tokens attend to one another; a one-dimensional U-Net runs over the noisy actions. It hears
# of the states twice: by scale and shift in every block (FiLM, together with $k$), and by
# cross-attention at its coarsest level. The states are encoded once a decision, the U-Net runs
# once a denoising step.

# %%
model = models[0].value
batch = studies[0].windows.batch(torch.arange(64))
names = ("past (B, T_o, S)", "actions (B, T, A)", "future (B, T-1, S)")
for name, tensor in zip(names, batch, strict=True):
    print(f"{name:<19}", tuple(tensor.shape))
size = sum(p.numel() for p in model.denoiser.parameters())
print(f"{model.denoiser.config.backbone}: {size:,} parameters")

# %% [markdown]
# A mask is only worth its name if what it hides changes nothing. So the hidden future is replaced
# by large nonsense, and the outputs must agree with those made without any future. Showing it
# must change them, or the mask would hide something that is not there.

# %%
start = seeded_noise(64, 3, model.action_shape)
nonsense = 100 * torch.randn(batch.future.shape, generator=torch.Generator().manual_seed(0))
hidden = torch.zeros(64, dtype=torch.bool)
acting = model.sample(start, model.encode(batch.past))
masked = model.sample(start, model.encode(batch.past, nonsense, hidden))
scored = model.sample(start, model.encode(batch.past, batch.future, ~hidden))
assert torch.allclose(acting, masked, atol=1e-5)  # hidden future changes nothing
assert not torch.allclose(acting, scored, atol=1e-3)  # visible future does
assert masked.shape == batch.actions.shape and masked.abs().max() <= 1

# %% [markdown]
# ## 5 · Training it, on the toy
#
# A small version of the same network learns from the toy's walks. Because the exact posterior mean
# is known, its error has two parts (their squares add): what no network could know (dashed) and
# what this one has not learnt (orange).

# %%
process = DiffusionConfig(
    num_updates=toy_updates, batch_size=128, warmup=50, lr=2e-3, ema_decay=0.98
)
small = DenoiserConfig(channels=(16, 32), d_model=32, num_layers=1)
toy_model = train_diffusion(process, small, toy, seed=0, progress=False)
estimates = views.estimate_table(toy_model, exact, toy)
here.draw("toy_training", estimates, task="toy", seeds=[0])

# %%
rmse = estimates.pivot(index="k", columns="what", values="rmse")
assert (
    rmse["exact to data"] <= rmse["trained to data"] + 1e-3
).all()  # nothing beats the exact one
gap = rmse["trained to exact"].mean() / rmse["exact to data"].mean()
Markdown(
    f"Averaged over the noise levels, what is left to learn is {gap:.0%} of what cannot be known."
)

# %% [markdown]
# **Sampling.** Fresh noises in states that the training has not seen. The comparison is between
# logged walks, the trained model and the exact one, all with ten steps.

# %%
states = toy.draw_states(200, torch.Generator().manual_seed(9))
noise = seeded_noise(200, 4, (8, 2))
learnt = toy_model.sample(noise, toy.past(states), num_steps=10)
ideal = exact.sample(noise, toy.past(states), num_steps=10)
panels = {
    "logged": (toy.states[:200], toy.actions[:200]),
    "trained": (states, learnt),
    "exact": (states, ideal),
}
here.draw("toy_samples", views.walks_table(toy, panels), task="toy", seeds=[0])

# %%
inside = float(toy.in_support(learnt, states).float().mean())
same = float((toy.mode_of(learnt) == toy.mode_of(ideal)).float().mean())
assert len(toy.mode_of(learnt).unique()) == 4  # all modes are reached
assert inside > 0.7 and same > 0.8
Markdown(
    f"{inside:.0%} of the trained model's walks are in a mode's support, and {same:.0%} go "
    "to the door to which the exact model sends the same noise."
)

# %% [markdown]
# The last number deserves a second look: a network that was never told which noise belongs to
# which door agrees with the closed form. The map from noise to output is a property of the data
# and of the process, hardly of the network.
#
# **What it predicts.** Three perceptrons of one size, trained alike on $x_0$, $\varepsilon$ and
# $v$, each against the exact posterior mean. Expectation, from section 2: at the noisy end
# $\varepsilon$ is far off. At the quiet end it should win, since $x_k$ is nearly the answer
# already and only a small correction has to be learnt.

# %%
flat = DenoiserConfig(backbone="mlp", d_model=32, hidden=(128, 128))
predictors = {
    kind: train_diffusion(replace(process, prediction=kind), flat, toy, seed=0, progress=False)
    for kind in denoising.PREDICTIONS
}
predictions = denoising.prediction_table(predictors, toy)
here.draw("prediction_types", predictions, task="toy", seeds=[0])

# %%
errors = predictions.pivot(index="k", columns="prediction", values="rmse")
quiet, noisy = errors.loc[errors.index.min()], errors.loc[errors.index.max()]
assert noisy.epsilon > 5 * noisy.x0  # where a plan is chosen
assert quiet.x0 > 2 * quiet.epsilon  # where it is polished
visited = errors.reindex([k for k, _ in exact.timesteps()], method="nearest").mean()
assert visited.idxmin() == "x0"
Markdown(
    f"**Verdict.** At the noisy end the error is smallest for {noisy.idxmin()} and "
    f"{noisy.epsilon / noisy.x0:.0f} times that of x0 for epsilon; at the quiet end it is "
    f"smallest for {quiet.idxmin()}, and {quiet.x0 / quiet.epsilon:.0f} times as large for x0. "
    f"Over the {default} levels of the default chain it is smallest for {visited.idxmin()}."
)

# %% [markdown]
# We act with few steps, most of them where noise is large: hence $x_0$. Its price is at the other
# end. There it must pass what noise the data has through the whole network, and a short training
# does not achieve that; section 8 shows where this hurts.
#
# **The three backbones.** The paper names a U-Net with a Transformer. Beside it stand the U-Net
# alone, where states enter by FiLM only, and a perceptron without any notion of time. Times are
# ratios to the first row, measured in turn; a decision is one chain for one state.

# %%
unet = train_diffusion(process, replace(small, backbone="unet"), toy, seed=0, progress=False)
bodies = {"unet_transformer": toy_model, "unet": unet, "mlp": predictors["x0"]}
backbones = denoising.backbones_table(bodies, toy)
here.table(backbones, "backbones", task="toy", seeds=[0])
backbones.round(3)

# %%
best = backbones.loc[backbones.rmse.idxmin()]
unknowable = float(rmse["exact to data"].mean())
assert (backbones.rmse < 0.5 * unknowable).all()  # each learns the toy
assert backbones.set_index("backbone").train_step["mlp"] < 1  # and the perceptron is the cheapest
Markdown(
    f"**Verdict.** Closest to the exact posterior mean is {best.backbone} (RMSE {best.rmse:.3f}); "
    f"the farthest is at {backbones.rmse.max():.3f}, beside {unknowable:.2f} that nobody can know."
)

# %% [markdown]
# A toy with one state and eight steps does not need attention over states or convolution over time,
# so this table is about cost. Longer state histories and visible futures are what the Transformer
# is for.
#
# **Averaged weights.** What is returned is not the last network but a moving average of all,
# $\bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta$, where $d$ rises to its final value over
# the first updates. Each step follows the noise of one batch; the average does not. Expectation: it
# helps as long as the learning rate is high, and no more when the rate has decayed to zero.

# %%
noisier = replace(process, num_updates=toy_updates // 2, batch_size=32)
averaging = denoising.averaging_table(toy, noisier, flat, every=toy_updates // 20)
here.draw("weight_averaging", averaging, task="toy", seeds=[0])

# %%
late = averaging[averaging["update"] > toy_updates // 4]
means = late.groupby(["rate", "weights"]).rmse.mean()
last = averaging[averaging["update"] == averaging["update"].max()]
end = last.groupby(["rate", "weights"]).rmse.mean()
assert means["constant", "averaged"] < means["constant", "last"]
assert abs(end["decaying", "averaged"] / end["decaying", "last"] - 1) < 0.1
Markdown(
    "**Verdict.** In the second half the averaged weights' error is "
    f"{means['constant', 'averaged'] / means['constant', 'last']:.0%} of the last weights' at a "
    f"constant rate; at the end of the decay it is "
    f"{end['decaying', 'averaged'] / end['decaying', 'last']:.0%}."
)

# %% [markdown]
# ## 6 · The robot
#
# Now Hopper, with $T$ actions of three joints. The behaviour that collected the data added its
# own exploration noise to every action, so we expect the loss to fall quickly and then to stop
# well above zero: noise cannot be predicted.

# %%
curve = pd.concat(run.metrics.assign(seed=run.record["seed"]) for run in runs)
here.draw("diffusion_training", curve[["step", "loss", "seed"]], runs, task="hopper-medium")

# %%
index = torch.linspace(0, len(studies[0].windows) - 1, 6).long()[1:-1]
sequences = views.sequences_table(model, studies[0].windows, index, draws=16, seed=0)
here.draw("action_sequences", sequences, runs[:1], task="hopper-medium")

# %% [markdown]
# **What to see.** The logged sequence (grey) jumps from step to step, as independent noise does.
# The samples (green) surround the zero-noise output (orange), which is smooth: it is close to the
# mean of what the data did in that state. Notebook 03 asks what follows from that for sub-policies.

# %% [markdown]
# ## 7 · The number of steps is a temperature
#
# For a single Gaussian of standard deviation $s$ every DDIM step is linear, so the output's
# standard deviation is a product of known factors. Expectation: few steps shrink it, and narrow
# data suffer most.

# %% tags=["nbval-check-output"]
closed = views.exact_spread_table(exact, (0.1, 0.3), steps)
for name, part in closed.groupby("source"):
    print(f"{name}:", {n: round(r, 2) for n, r in zip(part.steps, part.ratio, strict=True)})

# %%
gaussian = toys.Doors([(1, 0)], std=0.3)
sampled = toys.exact_model(gaussian, clip=100.0).sample(
    seeded_noise(2000, 5, (8, 2)), gaussian.past(torch.zeros(2000, 2)), num_steps=5
)
formula = toys.gaussian_output_sd(exact, 0.3, 5)
assert abs(float(sampled.std(dim=0).mean()) / formula - 1) < 0.05  # formula and sampling agree
here.draw("denoising_steps", pd.concat([spread, closed]), runs, task="hopper-medium")

# %%
table = spread.groupby("steps")[["output_sd", "data_sd", "ratio"]].mean()
assert (spread[spread.steps == 1].ratio < 1).all()  # one step is the posterior mean: regression
if here.profile != "smoke":  # an untrained network has no spread to speak of
    assert table.ratio.is_monotonic_increasing
table.round(3)

# %%
few, many_steps = table.ratio[default], table.ratio[max(steps)]
verdict = "shrink" if few < 0.95 * many_steps else "do not shrink"
Markdown(
    f"**Verdict.** From {max(steps)} to {default} steps the ratio goes from {many_steps:.2f} to "
    f"{few:.2f} (mean of {len(studies)} seeds): fewer steps {verdict} the output's spread."
)

# %% [markdown]
# ## 8 · How likely is a sequence?
#
# A policy that is a distribution should be able to say how likely a logged sequence is. Diffusion
# offers three numbers (A5), all in nats.
#
# - **DDPM's bound** adds up, level by level, how badly $\hat x_0$ was estimated:
#   $\log p(x_0) \ge \ldots - \sum_k \frac{1}{2}\, (\mathrm{SNR}_{k-1} - \mathrm{SNR}_k)\,
#   E \lVert x_0 - \hat x_0(x_k) \rVert^2$, with $\mathrm{SNR}_k = \alpha_k^2 / \sigma_k^2$.
# - **The calibrated bound** gives each reverse step the variance that the measured error asks for
#   (arXiv 2201.06503); DDPM's assumes none.
# - **The probability flow** (arXiv 2011.13456) has no noise. In $z = x / \alpha$ and
#   $\lambda = \log (\sigma / \alpha)$ it reads $\dot z = z - \hat x_0$, so the density along it
#   changes by a trace, which is computed exactly, one derivative a dimension:
#   $\frac{d \log p}{d \lambda} = \mathrm{tr}\, \frac{\partial \hat x_0}{\partial z} - T A$.
#
# The four doors have a closed form, so each can be checked. Expectation: with the exact score the
# flow and the calibrated bound agree with it to a few hundredths of a nat a dimension, and DDPM's
# bound lies below.

# %% tags=["nbval-check-output"]
known = likelihood.toy_likelihood_table({"exact score": exact}, toy, num_draws=4)
for row in known.itertuples():
    print(f"{row.model + ', ' + row.estimator:<30} {row.nats:.2f} nats a dimension")

# %%
gap = known.set_index("estimator").gap
assert abs(gap["flow"]) < 0.02
assert abs(gap["calibrated bound"]) < 0.05
assert gap["DDPM's bound"] < -0.1

# %% [markdown]
# **With trained networks.** The three perceptrons of section 5, on walks that they have not seen.
# Expectation: everything falls below the closed form, by what the network has not learnt, and
# $x_0$ falls most, for likelihood looks at the quiet end too.

# %%
named = {f"trained, {kind}": model for kind, model in predictors.items()}
learnt = likelihood.toy_likelihood_table(named, toy).iloc[1:]  # the closed form is above
valued = pd.concat([known, learnt], ignore_index=True)
here.table(valued, "toy_likelihood", task="toy", seeds=[0])
valued.pivot(index="model", columns="estimator", values="nats").round(2)

# %%
by = learnt.pivot(index="model", columns="estimator", values="gap")
assert (by < 0).all(axis=None)
assert (by["DDPM's bound"] < by["flow"] + 0.1).all()
assert (by["DDPM's bound"] < by["calibrated bound"]).all()
above = by.index[by["calibrated bound"] > by["flow"]]
Markdown(
    f"**Verdict.** By the flow the closest to the closed form is *{by['flow'].idxmax()}* and the "
    f"farthest *{by['flow'].idxmin()}*. The calibrated bound is above the flow for "
    f"{len(above)} of {len(by)} networks."
)

# %% [markdown]
# A bound above a likelihood is no contradiction. DDPM's chain and the flow are two models that
# share a network. They have the same density only if the network is exact; otherwise the chain,
# which adds the noise that its errors ask for, can describe the data better.
#
# ## 9 · What likelihood can tell apart
#
# On a robot no closed form is known. What can be asked is a ranking: does a sequence that was
# done score above a spoilt copy of it? Two kinds of copies: the steps *shuffled* in time, and
# Gaussian noise of a fraction of $\sigma_a$, the standard deviation of the dataset's actions. Both
# are scored in the same states with the same noise draws. The sequences are from new episodes that
# the behaviour policy plays for this purpose, so no model has learnt from them.
#
# Two datasets: the pen's expert, collected with little action noise, and Hopper's medium policy
# with its own exploration. Two conditionings (A1): the past alone, and all of $s_{1:T}$ as the
# paper writes it. Expectation: on the quiet data at least 95 % of pairs are ranked right, for
# shuffled copies and for noise of half a $\sigma_a$. On the noisy data a perturbation hides in the
# noise, and the future states help, for they show what was done. The flow, which is costly, judges
# one sequence in ten, on Hopper only and at the largest perturbation: an open diamond.
#
# The figure shows the AUC over all pairs, the verdict below it the share won within pairs. A pair
# compares two sequences in one state, where what the model does not know is the same for both.
# Across states it is not, so an AUC over all pairs tends to be lower than the share within pairs.

# %%
pens = [Study("pen-expert", s, here.profile, progress=False) for s in here.budget.seeds]
judged = [judging.rank_sequences(study, study.diffusion_policy()) for study in (*pens, *studies)]
scored = [
    (study.task.name, study.seed, found.value)
    for study, found in zip((*pens, *studies), judged, strict=True)
]
ranked = likelihood.ranking_table(scored)
judged_by = [found.run for found in judged]
here.draw("likelihood_ranking", ranked, judged_by, task="pen-expert, hopper-medium")

# %%
asked = ranked[ranked["copy"].isin(["shuffled", "noise 0.5"])]
shares = asked.pivot_table(index=["task", "judge"], columns=["copy", "seed"], values="won")
shares.round(3)

# %%
lowest = asked.groupby(["task", "judge", "copy"]).won.min()
noisy = asked[asked.task == "hopper-medium"]
won = noisy.pivot_table(index=["copy", "seed"], columns="judge", values="won")
helps = (won["whole"] > won["past"]).groupby("copy", sort=False).agg(["sum", "size"])
if here.profile != "smoke":  # every seed, both conditionings, both kinds of copies
    assert (lowest["pen-expert"][["past", "whole"]] >= 0.95).all()
    areas = ranked[ranked.scale.notna() & ranked.judge.isin(["past", "whole"])]
    ends = areas.pivot_table(index=["task", "seed", "judge"], columns="scale", values="auc")
    assert (ends[0.5] > ends[0.0625]).all()  # what is spoilt more is told apart better
Markdown(
    "**Verdict.** The lowest share over seeds and copies, given the past and given all: "
    + ", ".join(
        f"{task} {lowest[task]['past'].min():.1%} and {lowest[task]['whole'].min():.1%}"
        for task in ("pen-expert", "hopper-medium")
    )
    + ". Expected on pen-expert: at least 95 %. On hopper-medium the future states help in "
    + ", ".join(f"{row['sum']} of {row['size']} seeds ({copy})" for copy, row in helps.iterrows())
    + "."
)

# %% [markdown]
# **What to see.** The grey curve scores with the exact density of the policy that acted. That is
# what a perfect model of actions given states would say. It is no upper limit, for two reasons: who
# is shown all of $s_{1:T}$ also sees what the actions led to, and may or may not make use of it
# (the table compares both); and a copy whose noise was clipped
# onto an end of the box lands on an atom of the exact density (see *what fails*), which then
# prefers it, where a smoother model need not. Where only one of the two bounds is seen, they
# coincide. And some pairs are hard for everybody: where the hand holds still, steps differ by noise
# alone, and their order means little. If that is why pairs are lost, the policy that acted should
# prefer the logged order by less there, too.

# %%
pen = scored[0][2]
clearer = pen["behaviour.logged"] - pen["behaviour.shuffled"]
lost = pen["whole.logged"] < pen["whole.shuffled"]
Markdown(
    f"On pen-expert, seed {scored[0][1]}: {int(lost.sum())} of {len(lost)} shuffled copies win. "
    "The acting policy prefers the logged order by "
    f"{float(clearer[lost].median()):.0f} nats there and by {float(clearer.median()):.0f} nats "
    "overall (medians)."
)

# %%
sizes = {s.task.name: s.windows.horizon * s.task.robot.action_dim for s in (pens[0], studies[0])}
firsts = [scored[0], scored[len(pens)]]
first_runs = [judged[0].run, judged[len(pens)].run]
histogram = likelihood.scores_table(firsts, sizes)
here.draw("likelihood_histogram", histogram, first_runs, task="pen-expert, hopper-medium")

# %% [markdown]
# The bar at the left edge holds everything below it.

# %%
on_hopper = [scores for task, _, scores in scored if task == "hopper-medium"]
agreement = [likelihood.flow_agreement(scores) for scores in on_hopper]
print("rank correlation of bound and flow on Hopper:", [round(r, 2) for r in agreement])
typical = histogram.groupby(["task", "copy"], sort=False).nats.median().unstack()
typical["logged, by the policy that acted"] = {
    task: float(scores["behaviour.logged"].median()) / sizes[task] for task, _, scores in firsts
}
typical.round(2)

# %% [markdown]
# **The height and the order.** The order within pairs is what the verdict above is about. The
# height of a score is another matter, as the last column shows: a model that predicts $x_0$ learns
# the fine noise of the data last, and pays for it in every dimension.

# %% [markdown]
# **Health panel.** Are this policy's plans like what was logged in such states? The value is their
# distance from it, in units of held-out sequences. (Dynamics models leave these out; the policy has
# learnt from them, so it is judged a little too kindly.) [17](17_failure_signatures.ipynb) sets the
# threshold, on other tasks.

# %%
held, known = diagnostics.apart(studies[0].windows, studies[0].held_out[1])
similar = diagnostics.similar_sequences(held.past, known, k=32)
plans = SubPolicies.from_seeds(model, 16, 0).plan_shared(held.past)
diagnostics.panel([diagnostics.implausible(plans, held.actions, similar)])

# %% [markdown]
# ## What fails
#
# - **One step is regression.** It returns the posterior mean, which between modes is an action
#   nobody took. On noisy data with one mode it may score well nonetheless (notebook 03).
# - **Few steps act like less noise.** A comparison of two samplers with different numbers of steps
#   also compares two temperatures. Every figure here uses the default unless it says otherwise.
# - **A likelihood's height is not its order.** A model can rank almost every pair right and be
#   nats a dimension below the truth. Rank within a state; do not compare heights between models
#   that predict different things.
# - **Clipped actions have atoms.** On noisy data many actions lie at the ends of the box. A copy
#   that is moved off an end loses density, one that is clipped onto it gains, whatever is more
#   likely by eye: on Hopper the share within pairs need not grow with the noise.
# - **A low loss says little.** It is dominated by noise that cannot be predicted. Samples against
#   logged sequences and returns in the environment say more.
# - **Undertrained models sample implausible sequences.** The smoke profile shows it: its loss has
#   barely moved, and its figures only prove that the code runs.
