# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext
#     cell_metadata_filter: tags
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Augmentation: synthetic trajectories for the dynamics model
#
# **Concept.** A dynamics model T̂ predicts the next state from a state and an action. With it a
# policy can be judged, and improved, without touching the robot. It is fitted to a fixed dataset,
# so it is a function fitted on a part of its domain.
#
# **Question.** What goes wrong when a dynamics model has seen too little of the state-action
# space?
#
# <details><summary>Answer</summary>
#
# Inside the data it interpolates and is good. Outside nothing holds it: it answers with the same
# confidence and is wrong by orders of magnitude. A rollout makes it worse, because each
# prediction is the next input, so one step out of the data leads to more. And a policy that is
# chosen or trained inside T̂ is drawn to the places where T̂ errs in its favour. An ensemble
# helps: where its members were not told what to say, they disagree. New *real* data from there
# would repair the model; its own predictions cannot.
#
# </details>
#
# **Paper.** Contribution 3: diffusion-based data augmentation, the KL filter, joint training of
# T̂. Choices A6, A7 and A8 of this companion.
#
# **Run time** beyond shared models: about 20 s at `smoke`, about 1 min at `laptop`.
#
# **Inputs.** Hopper-medium and Hopper-expert; for every seed T̂_init, D_diff and T̂, as Algorithm
# 1 makes them.
#
# **Outputs.** Five figures and their tables, all named `05_*`.

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop
num_toy_seeds: int = 2  # pendulum ensembles
simulator_ratio: float = 0.1  # |D_diff| / |D| of the simulator variant, which is only looked at

# %%
import pandas as pd
import torch
from IPython.display import Markdown

from uepo_lib import dynamics, notebook, statistics
from uepo_lib.augmentation import AugmentationConfig, gaussian_kl
from uepo_lib.figures import augmentation as shown
from uepo_lib.stages import Study, load_data

# %%
drawn = ["toy", "calibration", "open_loop", "acceptance", "joint_training"]
outputs = [path for d in drawn for path in (f"figures/05_{d}.png", f"tables/05_{d}.csv")]
here = notebook.start("05_augmentation", profile, outputs)
seeds = here.budget.seeds

# %% [markdown]
# ## One measured number
#
# A pendulum, its angle and velocity, a torque as action. The data covers every angle on one side
# and none on the other. An ensemble is fitted to it. Then twice as many steps from *all* angles
# are added, once imagined by that ensemble, once real, and a new ensemble is fitted to both
# together, with equally many gradient steps.
#
# **Expectation.** On the unseen side the error explodes and the members disagree. Real steps
# repair it; imagined ones cannot, because they are a function of what the model already knew.

# %%
toy = pd.concat([shown.pendulum_table(seed) for seed in range(num_toy_seeds)])
here.draw("05_toy", toy, task="toy, pendulum", seeds=list(range(num_toy_seeds)))

# %%
side = toy["angle"].lt(0).map({True: "seen", False: "unseen"}).rename("side")
errors = toy.groupby(["training", side], sort=False)[["rmse", "disagreement"]].mean()
known, unknown = (errors.loc[("D alone", where), "rmse"] for where in ("seen", "unseen"))
imagined = errors.loc[("D and imagined steps", "unseen")]
quiet = errors.loc[("D alone", "unseen"), "disagreement"] / imagined["disagreement"]
Markdown(
    f"**On the unseen side the error is {unknown / known:,.0f} times that on the seen side.** With "
    f"imagined steps it stays at {imagined['rmse'] / unknown:.0%} of it, with real ones at "
    f"{errors.loc[('D and real steps', 'unseen'), 'rmse'] / unknown:.1%}. What imagined steps do "
    f"change is the disagreement: it falls by a factor of {quiet:,.0f}."
)

# %% [markdown]
# **What to see.** The last number is the trap. Trained on their own predictions, the members
# agree where they know nothing, and the one warning sign of the ensemble is gone while the error
# is still there. This is a caricature, with starts far outside the data; augmentation as the
# paper means it starts *inside* D and filters. Whether that is enough is measured below.

# %% tags=["nbval-check-output"]
real = errors.loc[("D and real steps", "unseen"), "rmse"]
print("error on the unseen side over 20 times larger:", bool(unknown > 20 * known))
print("imagined steps leave at least half of it:     ", bool(imagined["rmse"] > 0.5 * unknown))
print("real steps leave at most a tenth:             ", bool(real < 0.1 * unknown))
print("imagined steps make the members agree:        ", bool(quiet > 2))
assert unknown > 20 * known and imagined["rmse"] > 0.5 * unknown and real < 0.1 * unknown

# %% [markdown]
# ## The dynamics model
#
# T̂ is an ensemble of networks, each a Gaussian over the next state and the reward, fitted by
# maximum likelihood (`uepo_lib/dynamics.py`):
#
# $$L(\hat T) = -\mathbb E_{(s, a, s') \sim D}\big[\log \hat T(s' \mid s, a)\big]$$
#
# T̂_init is fitted to D. Augmentation then fits T̂ to D ∪ D_diff. The architecture, a few
# networks on bootstrapped data of which the best are kept as *elites*, is Uni-O4's.

# %% tags=["nbval-check-output"]
cfg = dynamics.DynamicsConfig(hidden=(32, 32), weight_decay=(0.0, 0.0, 0.0))
untrained = dynamics.build(cfg, state_dim=11, action_dim=3)
mean, logvar = untrained(torch.zeros(5, 11), torch.zeros(5, 3))
means, variances = untrained.moments(torch.zeros(5, 11), torch.zeros(5, 3))
print("every member, (E, B, S + 1):  ", tuple(mean.shape), tuple(logvar.shape))
print("elites only:                  ", tuple(means.shape), tuple(variances.shape))
assert (variances > 0).all()

# %% [markdown]
# ### On Hopper, on episodes it has not seen
#
# A tenth of the episodes is held out. First, likelihood and calibration: of all held-out values,
# how many lie inside T̂'s central 50 % interval, its 90 % interval?

# %%
studies = [Study("hopper-medium", seed, here.profile, progress=False) for seed in seeds]
first = studies[0]
data, (_, held_steps) = first.dataset, first.held_out
held = data.transitions()[held_steps]
initial = [study.dynamics() for study in studies]
calibration = pd.concat(
    shown.calibration_table(product.value, held).assign(seed=seed)
    for product, seed in zip(initial, seeds, strict=True)
)
runs = [product.run for product in initial]
here.draw("05_calibration", calibration, runs, task="hopper-medium")

# %%
numbers = pd.DataFrame([shown.fit_numbers(product.value, held) for product in initial])
at = calibration.assign(level=calibration["level"].round(2)).pivot(index="seed", columns="level")
numbers["inside 50 %"], numbers["inside 90 %"] = (at["observed", x].to_numpy() for x in (0.5, 0.9))
numbers.insert(0, "seed", seeds)
assert (numbers["mean NLL"] < numbers["blind Gaussian"]).all() or here.profile == "smoke"
numbers.round(2)

# %% [markdown]
# Hopper's simulator is deterministic, so a network can shrink its variance until it hits what it
# cannot fit: contacts. A curve below the diagonal is overconfident, one above it too careful; the
# tails carry the mean NLL, and the median tells how the ordinary step fares.
#
# ### Against predictors that know no dynamics
#
# Is T̂ good, or is one control step too short for anything to happen? Three baselines answer:
# *persistence* says that nothing changes; *constant velocity* extends the line through the last
# two states; *physical velocity* moves positions by the measured velocities, $q' = q + \Delta
# t\,\dot q$, and holds the velocities. T̂ is fed its own predictions along logged actions.
#
# **Expectation.** At one step, at least five times less squared error than constant velocity.

# %%
batch = shown.sequences(data, held_steps)
open_loop = pd.concat(
    shown.error_table({"T̂_init": product.value}, batch, data).assign(seed=seed)
    for product, seed in zip(initial, seeds, strict=True)
)
here.draw("05_open_loop", open_loop, runs, task="hopper-medium, held out")

# %%
one_step = open_loop[open_loop["step"] == 1].pivot(
    index="seed", columns="predictor", values="error"
)
baselines = one_step.drop(columns="T̂_init")
ratios = baselines.div(one_step["T̂_init"], axis=0)
ratios["strongest baseline"] = baselines.min(axis=1) / one_step["T̂_init"]
ratios.round(1).add_suffix(" / T̂_init")

# %%
if here.profile != "smoke":  # a few seconds of training promise nothing
    assert (ratios["constant velocity"] >= 5).all()
    assert (ratios["strongest baseline"] >= 5).all()
Markdown(
    f"**Result.** One step ahead the squared error of T̂_init is "
    f"{ratios['constant velocity'].min():,.0f} to {ratios['constant velocity'].max():,.0f} times "
    f"smaller than constant velocity's, and "
    f"{ratios['strongest baseline'].min():,.0f} to {ratios['strongest baseline'].max():,.0f} times "
    f"smaller than that of the strongest baseline, {baselines.mean().idxmin()}, by seed."
)

# %% [markdown]
# ## Synthetic trajectories, and the filter
#
# From states of D every sub-policy acts for H steps: plan, execute T_a actions, plan again. A
# trajectory enters D_diff if
#
# $$\mathrm{KL}(\text{real dynamics} \,\|\, \hat T_{init}) < \varepsilon, \qquad
# \varepsilon = 0.05.$$
#
# Offline there is no real next state to compare with, so the default rolls out in T̂_init itself
# and asks how far its elites disagree: a step costs the mean KL of each elite to the
# moment-matched mixture of all, $\frac1E \sum_e \mathrm{KL}(\hat T_e \,\|\, \mathcal N(\bar\mu,
# \bar\Sigma))$ (A6). Two elites a standard deviation either side of their mean cost ½ log 2:

# %% tags=["nbval-check-output"]
apart = shown.disagreement_by_hand(means=[-1.0, 1.0], variance=1.0)
print(f"elites at ±1, variance 1:     {apart:.6f} nats")
print(f"elites that agree:            {shown.disagreement_by_hand([0.3, 0.3], 1.0):.6f} nats")
one, two = torch.tensor(1.0), torch.tensor(2.0)
missed = gaussian_kl(two, one, 0 * one, one)  # the simulator's cost: ½ (Δ/σ̂)²
print(f"a real step missed by 2 σ̂:    {missed:.6f} nats")
assert abs(apart - 0.5 * torch.log(two.double())) < 1e-6 and abs(missed - 2) < 1e-6

# %% [markdown]
# If the real dynamics can be stepped (`transitions="simulator"`; privileged, since a robot cannot
# be put back into a logged state), the cost is the KL of the real next state under T̂_init's
# covariance, ½ mean (Δ/σ̂)². Every step and reset then counts as interaction (A7).
#
# Either number has no natural zero, so ε bounds the *excess* over the median of the same number
# on held-out real sequences: the **median rule**. A trajectory that T̂_init knows as well as a
# typical real one has excess 0, and at any ε ≥ 0 at least half of the real sequences would pass.
#
# **Look before choosing.** How much is kept, as a function of ε? The value of a trajectory is a
# mean over H steps. If errors were independent from step to step it would hardly vary, and the
# curve would be a cliff; the longer errors persist, the flatter it is.

# %%
products = [study.sub_policies(study.diffusion_policy(), 1.0, guided=True) for study in studies]
synthetic = [s.synthesise(p, t) for s, p, t in zip(studies, products, initial, strict=True)]
privileged = first.synthesise(
    products[0], initial[0], transitions="simulator", ratio=simulator_ratio
)
horizon = here.budget.augmentation_horizon
longer = shown.sequences(data, held_steps, count=512, ahead=horizon)
rule = AugmentationConfig(horizon=horizon)
real_step = AugmentationConfig(horizon=horizon, transitions="simulator")

# %%
curves = [
    shown.acceptance_table(
        {
            "held-out real": shown.real_excess(t.value, longer, rule),
            "synthetic, T̂_init": d.run.tensors("trajectories")["excess"],
        }
    ).assign(seed=seed)
    for t, d, seed in zip(initial, synthetic, seeds, strict=True)
]
by_simulator = {
    "held-out real, simulator's cost": shown.real_excess(initial[0].value, longer, real_step),
    "synthetic, simulator": privileged.run.tensors("trajectories")["excess"],
}
curves.append(shown.acceptance_table(by_simulator).assign(seed=seeds[0]))
acceptance = pd.concat(curves)
runs = [*(d.run for d in synthetic), privileged.run]
here.draw("05_acceptance", acceptance, runs, task="hopper-medium")

# %%
smallest = acceptance[acceptance["epsilon"] == acceptance["epsilon"].min()]
real_only = smallest[smallest["source"].str.startswith("held-out")]
assert (real_only["share"] > 0.5 - 1e-9).all()  # the median rule
for _, curve in acceptance.groupby(["source", "seed"]):
    assert curve["share"].is_monotonic_increasing

# %%
summaries = pd.DataFrame([d.run.json("summary") for d in [*synthetic, privileged]])
summaries.insert(0, "source", ["T̂_init"] * len(seeds) + ["simulator"])
assert (summaries["transitions"] <= summaries["wanted"]).all()
assert (summaries.loc[summaries["source"] == "T̂_init", "simulator_steps"] == 0).all()
summaries.round(3)

# %%
kept = summaries[summaries["source"] == "T̂_init"]
paid = summaries.iloc[-1]
short = kept["transitions"] < kept["wanted"]
Markdown(
    f"**Result.** At ε = {rule.epsilon:g} between {kept['acceptance'].min():.0%} and "
    f"{kept['acceptance'].max():.0%} of the trajectories in T̂_init are kept, by seed; |D_diff| is "
    f"{kept['transitions'].mean() / len(data):.2f} |D|"
    f" (attempts ran out in {short.sum()} of {len(kept)} seeds). "
    f"In the simulator {paid['acceptance']:.0%} are kept, for {paid['simulator_steps']:,} real "
    f"steps and {paid['simulator_resets']:,} resets at ratio {simulator_ratio:g}."
)

# %% [markdown]
# `acceptance="random"` keeps equally many trajectories drawn at random, and `"all"` keeps every
# one: the controls that say whether the *filter* matters, apart from the volume.
#
# ## Does D_diff make a better model?
#
# T̂ is fitted to D ∪ D_diff, T̂_init to D, with equal gradient steps, the same seed, and the same
# held-out episodes to choose weights by. Both are tested on real transitions only: held-out
# episodes of Hopper-medium, and Hopper-expert, states and actions that D does not hold
# (standardised as D is).
#
# **Expectation.** D_diff from T̂_init holds no fact about the world that D did not, and at equal
# gradient steps a share of them goes to fitting T̂_init's own predictions. So: no gain in
# distribution, and none, or a loss, out of it.

# %%
joint = [study.dynamics(d) for study, d in zip(studies, synthetic, strict=True)]
expert = load_data("hopper-expert", here.profile, False).restandardised(data.normaliser)
tested = {"held-out medium": batch, "expert (out of distribution)": shown.sequences(expert)}
comparison = pd.concat(
    shown.error_table({"T̂_init": t.value, "T̂": j.value}, sequence, data).assign(
        seed=seed, data=name
    )
    for name, sequence in tested.items()
    for t, j, seed in zip(initial, joint, seeds, strict=True)
)
runs = [product.run for product in (*initial, *joint)]
here.draw("05_joint_training", comparison, runs, task="hopper-medium")

# %%
wide = comparison.pivot_table(index=["data", "step", "seed"], columns="predictor", values="error")
gain = torch.tensor((wide["T̂_init"] / wide["T̂"]).to_numpy()).log2().tolist()
gains = pd.Series(gain, index=wide.index, name="log2(T̂_init / T̂)")
ends = gains[gains.index.get_level_values("step").isin([1, shown.STEPS])]
ends.unstack("seed").round(2)

# %% [markdown]
# Positive numbers mean that T̂ errs less; 1 means half the squared error.

# %%
lines = [
    f"- *{name}, {step} step{'s' if step > 1 else ''}:* {statistics.verdict(part.tolist())}; "
    f"error of T̂ over that of T̂_init {', '.join(f'{2**-g:.2f}' for g in part)}"
    for (name, step), part in ends.groupby(level=["data", "step"], sort=False)
]
Markdown("**Verdict: T̂ is better than T̂_init**, a number a seed.\n\n" + "\n".join(lines))

# %%
far = wide["T̂_init"].xs(1, level="step").unstack("data")
outside, inside = far["expert (out of distribution)"], far["held-out medium"]
Markdown(
    "Out of distribution the one-step error of T̂_init is "
    + ", ".join(f"{ratio:.1f}" for ratio in outside / inside)
    + " times that on held-out medium, by seed; above 1 is the pendulum's lesson on a robot."
)

# %% [markdown]
# ## What fails
#
# - **The filter trusts the model that it should doubt.** Disagreement is small where the elites
#   agree, right or wrong.
# - **The ratio is too high.** At equal gradient steps every imagined row takes the place of a
#   real one.
# - **ε out of its unit.** With unit variance on standardised states (`covariance="unit"`), costs
#   are so small that ε = 0.05 accepts almost everything.
# - **A diffusion policy that is undertrained** acts outside D at once; its trajectories end early
#   or fail the filter. Look at `mean_length` and `acceptance` in the table above.
#
# T̂ touches the offline choice of a policy only through AM-Q, which notebook 06 takes up.
