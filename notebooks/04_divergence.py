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
# # 04 · Divergence: how different are two action sequences?
#
# **Question.** Sub-policies are only worth having if they do different things. UEPO measures
# difference by how two action sequences move, and pushes sub-policies apart where they move
# alike. What does this number respond to, and what does pushing by it change?
#
# **Paper.** Contribution 2, dynamic divergence regularisation: the divergence, the perturbation
# σ_div, and the KL-style term. Choices A3, A4 and A5 of this companion.
#
# **Run time** beyond shared models: about 25 s at `smoke`, about 3 min at `laptop`.
#
# **Inputs.** Diffusion policies on two robots: `pen-expert`, whose data have little action noise,
# and `hopper-medium`, whose data have much; all seeds of the profile.
#
# **Outputs.** Figures and their tables, all named `04_*`.

# %% tags=["parameters", "long"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop
num_toy_sets: int = 40  # sets of sub-policies on the toy that results are reported for
toy_updates: int = 1000  # training steps of the toy model that is not exact
eta: float = 0.5  # η, the largest perturbation, in action units

# %%
from dataclasses import replace

import pandas as pd
import torch
from IPython.display import Markdown
from torch.distributions import Normal

from uepo_lib import divergence as dv
from uepo_lib import diversity, notebook, statistics, toys
from uepo_lib.denoisers import DenoiserConfig
from uepo_lib.diffusion import DiffusionConfig, train_diffusion
from uepo_lib.figures import diversity as forms
from uepo_lib.figures import embedding as members
from uepo_lib.figures import (
    executed,
    guidance,
    guidance_robots,
    guidance_says,
    mechanisms,
    survival,
)
from uepo_lib.guided_sets import LONG, SETTINGS, SHIPPED, STRONG, TASKS, GuidedRobot
from uepo_lib.stages import Study

# %%
drawn = ["gaits", "perturbation", "toy_tuning", "toy_guidance", "survival", "toy_trace"]
drawn += [f"robot_{d}" for d in ("divergence", "guidance", "survival", "trace", "returns")]
drawn += ["executed", "diversity_objective", "diversity_gaussians", "diversity_embedding"]
outputs = [path for d in drawn for path in (f"figures/04_{d}.png", f"tables/04_{d}.csv")]
here = notebook.start("04_divergence", profile, outputs)

# %% [markdown]
# ## The definition
#
# Two policies may hold a joint at different angles and still walk alike, so the paper compares
# *changes*. The first difference of an action sequence is its velocity, the second its
# acceleration:
#
# $$\dot a_t = a_{t+1} - a_t, \qquad \ddot a_t = \dot a_{t+1} - \dot a_t$$
#
# $$\mathrm{div}(a_i, a_j) = \frac1T \sum_t \Big( \lVert \dot a_{i,t} - \dot a_{j,t} \rVert_2
# + \big(1 - \cos(\ddot a_{i,t}, \ddot a_{j,t})\big) \Big)$$
#
# The sum is printed with 1/T, yet a sequence of T actions has T − 1 velocities and T − 2
# accelerations. Each term is a mean over those that exist (A4). In `uepo_lib/divergence.py` they
# are `velocity_term` and `acceleration_term`, and `divergence` is their sum.
#
# ### By hand
#
# Two ways to the same place, four actions in two dimensions. The first goes right, then up; the
# second up, then right; their last steps agree.

# %% tags=["nbval-check-output"]
a = torch.tensor([[0.0, 0.0], [0.3, 0.0], [0.3, 0.4], [0.7, 0.4]], dtype=torch.float64)
b = torch.tensor([[0.0, 0.0], [0.0, 0.4], [0.3, 0.4], [0.7, 0.4]], dtype=torch.float64)
for name, way in (("first", a), ("second", b)):
    print(f"{name}: velocities\n{dv.velocity(way).numpy().round(6)}")
    print(f"{name}: accelerations\n{dv.acceleration(way).numpy().round(6)}")
print(f"div = {dv.velocity_term(a, b):.6f} + {dv.acceleration_term(a, b):.6f}", end="")
print(f" = {dv.divergence(a, b):.6f}")

# %% [markdown]
# With a pencil: the velocities differ by (0.3, −0.4), then by (−0.3, 0.4), then not at all, so
# the first term is the mean of two lengths of a 3-4-5 triangle and a zero. The accelerations
# first point in opposite directions, cosine −1, and then include an angle of 45°.

# %%
by_hand = (0.5 + 0.5 + 0) / 3 + ((1 - (-1)) + (1 - 2**-0.5)) / 2
assert abs(float(dv.divergence(a, b)) - by_hand) < 1e-6

# %% [markdown]
# ### Five facts
#
# Symmetric; zero for equal sequences; blind to a constant offset; the cosine ignores size, so
# that scaling both sequences scales the first term and leaves the second; and stillness has no
# direction: below the floor on ‖ä‖ two still sequences count as equal, a still one and a moving
# one as unrelated. The floor is 5 % of the median ‖ä‖ in the data.

# %%
x, y = torch.randn(2, 500, 8, 3, generator=torch.Generator().manual_seed(0)).double()
offset = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64)
still = torch.zeros_like(x)
torch.testing.assert_close(dv.divergence(x, y), dv.divergence(y, x))
assert dv.divergence(x, x).abs().max() < 1e-12
assert dv.divergence(x, x + offset).abs().max() < 1e-12
torch.testing.assert_close(dv.velocity_term(3 * x, 3 * y), 3 * dv.velocity_term(x, y))
torch.testing.assert_close(dv.acceleration_term(3 * x, 3 * y), dv.acceleration_term(x, y))
assert dv.divergence(still, still + offset, floor=0.01).abs().max() < 1e-12
assert (dv.acceleration_term(x, still, floor=1e-6) - 1).abs().max() < 1e-12

# %% [markdown]
# The third fact deserves a pause. A sub-policy that always pushes a little harder than another
# is, to div, the same policy. On data with a single mode fixed initial noise adds one pattern to
# every plan (notebook 03). div sees how that pattern moves from step to step and not its mean, so
# the part of diversity that changes returns can be the part that div does not see.
#
# ## What it measures
#
# Take one smooth gait of three joints. Play it twice, with independent action noise, as every
# stochastic behaviour policy does. Then take two noise-free gaits in antiphase: two legs doing
# the opposite at every moment.
#
# **Expectation.** A measure of behaviour ranks the antiphase pair far above the repeats.

# %% tags=["nbval-check-output"]
gaits = mechanisms.gait_table()
print(gaits.round(2).to_string(index=False))

# %%
here.draw("04_gaits", gaits, task="toy gait")

# %% [markdown]
# **What to see.** The repeats climb past the antiphase line: with enough noise, one gait scores
# as more different from itself than from its opposite. The dotted line is a closed form that
# knows no gait at all. For action noise of standard deviation σ in A dimensions,
#
# $$\mathbb{E}\,\mathrm{div} \to 2\sigma \sqrt2\,\frac{\Gamma((A+1)/2)}{\Gamma(A/2)} + 1,$$
#
# since a difference doubles the variance, the difference of two sequences doubles it again, and
# second differences of noise point anywhere. A moving average over three steps removes part of it,
# a smaller part where the noise is strong, and leaves the antiphase pair nearly untouched. So this
# companion never shows a div alone: beside it stands its *noise floor*, div between repeats of one
# behaviour, and div of low-passed actions.

# %%
of = gaits.set_index(["pair", "noise"])["div"]
antiphase = of["two gaits in antiphase", 0.0]
assert of["one gait, twice", 0.0] == 0 and of["constant offset of 0.3", 0.0] < 1e-2
assert of["one gait, twice", 0.6] > antiphase > of["one gait, twice", 0.3]
drowned = mechanisms.white_noise_divergence(0.6, action_dim=3)
assert abs(of["one gait, twice", 0.6] / drowned - 1) < 0.01

# %% [markdown]
# ## The perturbation
#
# Where a sub-policy comes closer than τ to its nearest neighbour during reverse sampling, the
# paper adds noise to its actions:
#
# $$a^i_t \leftarrow a^i_t + \delta, \qquad \delta \sim \mathcal N(0, \sigma_{div}^2 I), \qquad
# \sigma_{div} = \eta\,\frac{\tau - \mathrm{div}(a_i, a_j)}{\tau}$$
#
# `divergence.Guidance` does this on x̂₀, the plan that the model estimates at a reverse step
# (notebook 02): at every step but the last, for all pairs at once, each sub-policy against its
# nearest neighbour. Its noise is drawn once, so that a guided sub-policy is still a function of the
# state (A3). For τ the paper gives no number: here it is the median nearest-neighbour div of the
# *unguided* set, fixed before anything is guided (A4).
#
# One reading of the paper says that the coefficient is "adjusted with training progress" (A11).
# Guidance acts in sampling, when the weights are final: a schedule over gradient steps would have
# nothing to act on. The progress that it can follow is that of the reverse process. So two
# schedules are here: *linear*, η falling to 0 along the reverse steps (the default), and
# *constant*, as printed.
#
# How does σ depend on τ? One public summary of the paper says that a higher τ perturbs less.
# Differentiate:
#
# $$\frac{\partial \sigma_{div}}{\partial \tau} = \frac{\eta\,\mathrm{div}}{\tau^2} > 0.$$
#
# A higher τ means more perturbation, and more places where there is any.


# %% tags=["nbval-check-output"]
def sigma(threshold: torch.Tensor, distance: float, largest: float = 0.5) -> torch.Tensor:
    return largest * (threshold - distance) / threshold


for value in (0.5, 1.0, 2.0):
    tau = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sigma(tau, 0.4), tau)
    assert abs(slope - 0.5 * 0.4 / value**2) < 1e-12 and slope > 0
    print(f"div 0.4, τ {value}: σ = {sigma(tau, 0.4):.3f}, ∂σ/∂τ = {slope:.3f}")

# %%
here.draw("04_perturbation", guidance.perturbation_table((0.5, 1.0, 2.0), eta), task="formula")

# %% [markdown]
# The library's own hook agrees with the formula, and does nothing at the last step:

# %%
near = torch.stack([x[:64], x[:64] + 0.05 * y[:64]]).float()
hook = dv.Guidance(dv.GuidanceConfig(threshold=1.0, eta=eta), torch.zeros(2, 5, 8, 3))
distance, _ = dv.nearest_neighbour(near)
expected = sigma(torch.ones_like(distance), distance, eta).clamp(min=0)
torch.testing.assert_close(hook.sigma(near, step_index=0), expected)
assert expected.max() > 0 and hook.sigma(near, step_index=4).abs().max() == 0

# %% [markdown]
# ## A toy with four modes
#
# A point in the plane leaves by one of four doors (notebook 02). The model is the exact one, so
# whatever happens is the mechanism and not a matter of training. A *set* is four sub-policies from
# one seed; many sets are computed side by side.
#
# Three numbers. A *call* is one state in which the whole set plans. The share of calls in which all
# four are at least τ apart is what guidance aims at. The number of doors among the four is what one
# wants from it. The share of plans within a mode's support says what it broke.
#
# **Expectation.** Guidance takes the share of calls at τ from under 50 % to at least 90 %.
#
# ### Which setting?
#
# The paper gives neither η nor the number of reverse steps. Both are tried on sets that no result
# below is reported for: reverse steps, η, and the two schedules. Of the settings that keep 95 % of
# the plans within a mode the one with the highest share is chosen; within five points of it, the
# weakest η.

# %%
toy = toys.four_modes()
exact = guidance.ToyStudy(toy, toys.exact_model(toy), tuning=range(1000, 1040))
chain_lengths, etas = (5, 10, 13, 20, 50), (0.1, 0.3, 1.0, 3.0)
tuned = guidance.tuning_table(exact, chain_lengths, etas)
here.draw("04_toy_tuning", tuned, task="toy, four doors", seeds=list(exact.tuning))

# %%
chosen = guidance.choose(tuned)
num_steps, schedule = int(chosen["steps"]), str(chosen["schedule"])
tau, best_eta = float(chosen["tau"]), float(chosen["eta"])
tried = int((tuned["eta"] > 0).sum())
five = tuned[tuned["steps"] == 5]
Markdown(
    f"**Chosen from {tried} settings on {len(exact.tuning)} sets:** {num_steps} reverse steps, "
    f"{schedule} η = {best_eta:g}, with τ = {tau:.2f}. With the default five reverse steps no "
    f"setting passes a share of {five['call_share'].max():.0%}."
)

# %% [markdown]
# **What to see.** The rule can be read off the maps: grey cells lose too many plans, the framed
# ones have the highest shares of the rest, and of these the weakest η is taken (where several have
# it, the higher share). More steps help until they hurt. With five, much of guidance is undone on
# this toy, and a larger η wins only part of it back. With fifty, its last perturbations come when
# hardly any noise is left to hide them, and plans fall out of support. Why that is so, the next
# section computes. Each number of steps has a τ of its own (beside its row), so a share says how
# far a cell stands above its unguided sets (first column), and compares only roughly with another
# row's.
#
# ### Other sets, and two controls
#
# The setting is now fixed, the seeds are new. Two controls have the same root-mean-square power as
# guidance: *ungated* noise at the same steps, whatever the divergence, and white noise on the
# *final* actions, as large as all that guidance did to them. In the table `member_share` counts
# sub-policies in place of calls, `div` is that to the nearest neighbour, `low_passed` the same of
# smoothed plans.

# %%
toy_sets = range(num_toy_sets)
table = guidance.report_table(exact, toy_sets, chosen, etas)
here.draw("04_toy_guidance", table, task="toy, four doors", seeds=list(toy_sets))

# %%
at_eta = table[table["eta"] == best_eta]
columns = ["call_share", "member_share", "div", "low_passed", "modes", "in_support"]
means = at_eta.groupby("set", sort=False)[columns].mean()
means.round(2)

# %%
plain, guided = means.loc["unguided"], means.loc["guided"]
assert plain["call_share"] < 0.5 and guided["call_share"] >= 0.9
assert guided["in_support"] >= 0.95 and guided["modes"] > plain["modes"]

# %%
ungated, final = means.loc["ungated"], means.loc["final"]
Markdown(
    f"**Result, {num_toy_sets} new sets.** Calls with all sub-policies at least τ apart: "
    f"{plain.call_share:.0%} unguided, **{guided.call_share:.0%} guided**, "
    f"{ungated.call_share:.0%} with ungated noise, {final.call_share:.0%} with white noise on the "
    f"final actions. Doors among the four: {plain.modes:.2f}, **{guided.modes:.2f}**, "
    f"{ungated.modes:.2f}, {final.modes:.2f}; independent draws give {toys.null_coverage(4):.2f}. "
    f"Plans within a mode: {plain.in_support:.0%}, **{guided.in_support:.0%}**, "
    f"{ungated.in_support:.0%}, {final.in_support:.0%}."
)

# %%
rows = [
    f"- *Guided above {other}, {what}:* "
    + statistics.verdict(guidance.paired(at_eta, column, "guided", other))
    for column, what in (("call_share", "share of calls at τ"), ("modes", "doors"))
    for other in ("unguided", "ungated")
]
Markdown("**Verdict on this toy**, paired by set, 95 % intervals:\n\n" + "\n".join(rows))

# %%
Markdown("**White noise on finished actions, by η.** " + guidance_says.jitter_says(table))

# %% [markdown]
# **What to see.** Here the paper's idea works, and the controls say which part of it. Noise at the
# same steps without the gate raises div too, by jitter inside a door, and finds no new one. The
# gate leaves those alone that are apart already and shakes the others until they part: a search,
# with rejection, along the reverse process. White noise on finished actions comes when every door
# is chosen, and finds none at any η. At the chosen one (dotted) it reaches τ in nearly every call
# by leaving the data; a weak one does so inside the modes (above). So a share at τ is no evidence
# of doors: they have to be counted.

# %%
assert final["call_share"] >= guided["call_share"] - 0.05 and final["in_support"] < 0.5
doors = table.groupby(["set", "eta"])["modes"].mean()
assert (doors["final"] - doors["unguided"]).abs().max() < 0.1  # it comes after the choice
assert guided["modes"] > ungated["modes"]

# %% [markdown]
# ## Where a perturbation is undone
#
# Guidance adds δ to x̂₀ and keeps ε̂, so the next noisy x is off by α δ (here α and σ are those of
# the noise schedule, 02). All later steps are a denoiser, and to a denoiser δ is one more noise.
# For data from one Gaussian with standard deviation s, every step of the exact chain is linear,
# and the answer is a product (`toys.gaussian_survival`):
#
# $$\text{left of } \delta_j = \alpha_{k'_j} \prod_{m>j} s_m \;\longrightarrow\;
# \sqrt{\frac{\alpha^2 s^2}{\alpha^2 s^2 + \sigma^2}} \quad \text{at } k'_j,$$
#
# where s_m is the slope of step m and the limit is that of many steps: what is left is the root of
# the *data's share* in the variance of x. Quiet data take a perturbation back until almost all
# noise is gone; noisy data keep it.

# %% tags=["nbval-check-output"]
for std in (0.05, 0.1, 0.5):
    for steps in (5, 20):
        left = toys.gaussian_survival(exact.model, std, steps)[-2]
        print(f"data sd {std:<4g} {steps:>2} steps: {left:.2f} of the last perturbation is left")

# %% [markdown]
# **Expectation.** On one door `survival.survival`, which perturbs one step at a time and looks at
# the actions, measures this number. With four doors there is one more way to change the actions:
# to be pushed through to another door, early, while the choice is still open. The panel with four
# doors averages over sets of several seeds.

# %%
door = toys.Doors([(1, 1)], std=toy.std)
one = guidance.ToyStudy(door, toys.exact_model(door, clip=100.0), range(4))
parts, traces = [], []
for steps in (5, num_steps, 20):
    single = one.guided(one.tuning, steps, eta, "constant", tau=1.0)
    parts.append(survival.survival_table("one door", single, toy.past(one.states), 0.02, toy.std))
    level = exact.threshold(steps)
    four = exact.guided(toy_sets[:20], steps, best_eta, schedule, level)
    past = toy.past(exact.states)
    parts.append(survival.survival_table("four doors", four, past, 0.3, toy.std))
    name = f"{steps} reverse steps"
    traces.append(survival.trace_table(name, four, past, level, exact.floor, num_sets=20))
undone = pd.concat(parts).sort_values("name", ascending=False)
here.draw("04_survival", undone, task="toy", seeds=list(toy_sets[:20]))

# %%
linear = undone[undone["name"] == "one door"]
assert (linear["along"] - linear["closed_form"]).abs().max() < 1e-3
assert (linear["size"] - linear["closed_form"]).abs().max() < 1e-3
jumps = undone[(undone["name"] == "four doors") & undone["noise"].between(0.4, 0.9)]
assert (jumps["size"] > 2 * jumps["closed_form"]).all()

# %%
here.draw("04_toy_trace", pd.concat(traces), task="toy", seeds=list(toy_sets[:20]))

# %% [markdown]
# **What to see.** On this toy δ lifts nearly all estimates over τ (dotted; none is added at the
# last step); what counts is where they stand when the next step has looked at them (solid blue). In
# the noisy half they fall back at once. Near the end, where a push is kept, they stay. Five steps
# have no step there: the last perturbation is made with much noise left, and the jump to the
# actions takes most of it back. Long chains have many, too late to repair what they break.
#
# So on this toy guidance needs more than a few reverse steps, and spreads sub-policies in two ways:
# by moving some to other doors in the middle of the process, and by jitter at its end.
#
# ### A stricter τ, two sub-policies, a trained model
#
# τ above is one number for all sets. Read to the letter, each set has the median of its own four
# members. Where these happen to lie at four doors already, that median is the distance between
# doors, and nobody can be further apart. With two sub-policies the same happens in general: most
# pairs are at two doors, so their median div is that of two doors.
#
# And a network that was *trained* on walks to these doors? It is run at the chosen setting and, in
# favour of guidance, with fifty steps and a τ between the div of one door and that of two.

# %%
updates = toy_updates if here.profile != "smoke" else toy_updates // 10
toy_model = train_diffusion(
    DiffusionConfig(num_updates=updates, batch_size=128, warmup=50, lr=2e-3, ema_decay=0.995),
    DenoiserConfig(channels=(16, 32), d_model=32, num_layers=1),
    toy,
    seed=0,
    progress=False,
)
trained = guidance.ToyStudy(toy, toy_model, exact.tuning)
some = toy_sets[: 8 if here.profile == "smoke" else num_toy_sets]

# %%
two, wide = replace(exact, n=2), replace(trained, quantile=0.6)
fifty = pd.Series({**chosen, "steps": 50})
variants = {
    "exact, τ of all sets": at_eta,
    "exact, τ of each set": guidance.own_thresholds_table(exact, toy_sets[:12], chosen),
    "exact, n = 2": guidance.report_table(two, toy_sets, chosen, (best_eta,)),
    "trained": guidance.report_table(trained, some, chosen, (best_eta,)),
    "trained, 50 steps": guidance.report_table(wide, some, fifty, (best_eta,)),
}
frames = [part.assign(variant=name) for name, part in variants.items()]
compared = pd.concat(frames).groupby(["variant", "set"], sort=False)[["tau", *columns]].mean()

# %%
before, after = (compared.xs(name, level="set") for name in ("unguided", "guided"))
lines = [
    f"- *{name}*, τ = {a.tau:.2f}: share {a.call_share:.0%} → {b.call_share:.0%}, doors "
    f"{a.modes:.2f} → {b.modes:.2f}, in support {a.in_support:.0%} → {b.in_support:.0%}"
    for (name, a), (_, b) in zip(before.iterrows(), after.iterrows(), strict=True)
]
assert (after["call_share"] > before["call_share"])[:3].all()  # of the exact model
Markdown("**Result.**\n\n" + "\n".join(lines))

# %%
past, last = toy.past(exact.states), num_steps - 2  # the last guided step
kept = {}
for name, study in (("exact", exact), ("trained", trained)):
    policies = study.guided(toy_sets[:8], num_steps, best_eta, schedule, tau)
    kept[name] = survival.survival_table(name, policies, past, 0.02)["size"][last]
taus = {"exact": before.loc["exact, τ of all sets", "tau"], "trained": before.loc["trained", "tau"]}
Markdown(guidance_says.trained_says(kept, taus))

# %% [markdown]
# **What to see.** No denoiser is better than the exact posterior mean, which minimises the loss
# ([02](02_diffusion_policy.ipynb)). A trained network *underfits* the jitter within a door: it
# draws doors narrower than they are ([03](03_subpolicies.ipynb) measures the width), and the
# narrower a door, the more of a push is taken back. What matters more is τ: sub-policies that lie
# close to the middle of a door lie close to one another, and τ at their median falls with them, so
# the gate hardly opens. A τ between one door and two opens it, and doors are found. Robots have
# trained models.
#
# ## Two robots
#
# The pen in a hand, logged from an expert with an action noise of 0.1, and Hopper, logged with
# about 0.5. Both take the same network, and sub-policies at κ = 1, the full scale of their noise.
#
# **Expectation**, from the closed form: on the pen nearly everything is taken back, on Hopper much
# is kept.

# %%
seeds = here.budget.seeds[:1] if here.profile == "smoke" else here.budget.seeds
robots = {
    task: [GuidedRobot(Study(task, s, here.profile, progress=False)) for s in seeds]
    for task in TASKS
}
everyone = [robot for task in TASKS for robot in robots[task]]
runs = [robot.model.run for robot in everyone]
both = " and ".join(TASKS)
num_states = 16 if here.profile == "smoke" else 64
probes = [robot.study.starts(num_states, "guidance") for robot in everyone]

# %% [markdown]
# ### What τ is, and where noise lies
#
# τ by κ, as quantiles of the unguided sets' nearest-neighbour div, beside the noise floor: the
# zero-noise policy repeated with the action noise of its data. The figure shows the whole
# distributions for one seed at κ = 1, with guidance and its two controls at the strongest η of the
# sweep below, over the short chain; *low-passed* is div of actions averaged over three steps, as
# above.

# %%
calibrated = pd.concat(
    guidance_robots.calibration_table(robot, past, (0.25, 0.5, 1.0))
    for robot, past in zip(everyone, probes, strict=True)
)
levels = calibrated.groupby(["task", "set", "quantile"], sort=False)[["tau", "low_passed"]].mean()
levels.unstack().round(2)

# %%
middle = levels.xs(0.5, level="quantile")["tau"].unstack()
below = [t for t in TASKS if middle.loc[t, "κ = 1"] < middle.loc[t, guidance_robots.NOISY]]
ranges = [f"{t} {middle.loc[t, 'κ = 0.25']:.2f} to {middle.loc[t, 'κ = 1']:.2f}" for t in TASKS]
Markdown(
    f"A τ belongs to one κ and one dataset: the median from κ = 0.25 to 1 is {', '.join(ranges)}. "
    f"Below the noise floor at κ = 1: **{', '.join(below) or 'none'}**. There sub-policies differ "
    "by less than one noisy policy differs from itself, and reaching τ by noise is no achievement."
)

# %%
first = [robots[task][0] for task in TASKS]  # one seed of each
spread = pd.concat(
    guidance_robots.quantile_table(r, r.study.starts(num_states, "guidance"), STRONG) for r in first
)
first_runs = [robot.model.run for robot in first]
here.draw("04_robot_divergence", spread, first_runs, task=both)

# %% [markdown]
# **What to see** (at `laptop`). On the pen guidance moves up mainly what was below τ, and even
# noise on the final actions leaves the sets far from the noise floor (dashed). On Hopper the
# unguided set lies left of the floor and the guided one right of it, but low-passed the guided set,
# both controls and the floor lie close together: what guidance adds there, noise adds as well.
#
# ### Share, likelihood, and the controls
#
# η over a decade around the standard deviation of actions, with five reverse steps and with twenty,
# in states that did not calibrate τ; the figure shows the constant schedule. `moved` is the RMS
# distance of plans from the unguided ones, in action units. Likelihood is the model's own: a bound
# on log p(a | s), with common random numbers, less that of the unguided set (A5).

# %%
settings = (SHIPPED, STRONG, LONG) if here.profile == "smoke" else SETTINGS
shares = pd.concat(
    guidance_robots.guidance_table(robot, settings, num_states) for robot in everyone
)
here.draw("04_robot_guidance", shares, runs, task=both)

# %%
keys = ["task", "steps", "schedule", "eta", "set"]
numbers = ["call_share", "member_share", "moved", "likelihood"]
mean_shares = shares.groupby(keys, sort=False)[numbers].mean()
mean_shares.xs(STRONG.eta, level="eta", drop_level=False).round(2)  # the strongest η

# %%
gains = guidance_robots.gain_table(shares, "unguided")
gains.round(2)

# %%
rising = gains[(gains["low"] > 0) & (gains["schedule"] == "constant")]
found = [f"{g.task}, {g.steps} steps, η = {g.eta:g}" for g in rising.itertuples()]
Markdown(
    "**Above the unguided share, beyond the 95 % interval over seeds, at:** "
    + ("; ".join(found) or "none of these settings")
    + "."
)


# %%
def gain(task: str, steps: int, other: str) -> list[float]:
    part = shares[(shares["task"] == task) & (shares["steps"] == steps)]
    return guidance.paired(part[part["eta"] == STRONG.eta], "call_share", "guided", other)


lines = [
    f"- {task}, {steps} steps, above {other}: {statistics.verdict(gain(task, steps, other))}"
    for task in TASKS
    for steps in (STRONG.steps, LONG.steps)
    for other in ("unguided", "ungated", "final")
]
Markdown(f"**Verdict: guided share of calls at τ, η = {STRONG.eta:g}:**\n\n" + "\n".join(lines))

# %%
shipped = mean_shares.xs(SHIPPED.schedule, level="schedule").droplevel(["steps", "eta"])
lines = [
    f"- {t}: {shipped.loc[(t, 'unguided'), 'call_share']:.0%} → "
    f"{shipped.loc[(t, 'guided'), 'call_share']:.0%}, plans changed by "
    f"{shipped.loc[(t, 'guided'), 'moved']:.3f} action units (RMS)"
    for t in TASKS
]
Markdown(f"**As shipped** ({SHIPPED}), a mild setting:\n\n" + "\n".join(lines))

# %% [markdown]
# ### At which step it is undone
#
# The lines are no fit: they are the closed form above, with the action noise of the dataset for s.

# %%
parts, traces = [], []
for robot, past in zip(everyone, probes, strict=True):
    recipe, task = robot.study.dataset.metadata["recipe"], robot.study.task.name
    noise = torch.as_tensor(recipe["parts"][0]["action_noise"]).float().square().mean().sqrt()
    for setting in (STRONG, LONG):
        set_, rule = robot.at(setting), robot.rule(setting.steps)
        part = survival.survival_table(task, set_, past[: num_states // 4], 0.1, float(noise))
        parts.append(part.assign(seed=robot.study.seed))
        name = f"{task}, {setting.steps} steps"
        traces.append(survival.trace_table(name, set_, past, rule.threshold, rule.floor))
kept = pd.concat(parts)
here.draw("04_robot_survival", kept, runs, task=both)

# %%
here.draw("04_robot_trace", pd.concat(traces), runs, task=both)

# %%
Markdown(
    f"**Calls with estimates all at least τ apart**, η = {STRONG.eta:g}, means over seeds:\n\n"
    + guidance_says.trace_says(pd.concat(traces))
)

# %%
last = kept[(kept["steps"] == STRONG.steps) & (kept["step"] == STRONG.steps - 1)]
left = last.groupby("name")[["along", "size", "closed_form"]].mean()
met = "met" if left.loc[TASKS[0], "size"] < 0.2 < left.loc[TASKS[1], "size"] else "not met"
Markdown(
    f"**Result.** Of a perturbation at the last guided step of {STRONG.steps}, the actions keep "
    + ", ".join(
        f"{left.loc[t, 'along']:.0%} on {t} (in size {left.loc[t, 'size']:.0%})" for t in TASKS
    )
    + " (closed form: "
    + ", ".join(f"{left.loc[t, 'closed_form']:.0%}" for t in TASKS)
    + f"). Expected was nearly nothing of its size on the first and much on the second, below and "
    f"above a fifth: {met}. {guidance_says.closed_form_says(kept)}"
)

# %%
Markdown(
    f"**And the share of calls at τ**, η = {STRONG.eta:g}, means over seeds:\n\n"
    + guidance_says.shares_say(shares, STRONG.eta)
)

# %% [markdown]
# **What to see** (at `laptop`). τ is calibrated on finished plans, and estimates along the chain
# are another population: on the pen with twenty steps most unguided ones lie beyond τ until the
# last step. So read solid blue against grey, not against 1. On the pen δ lifts nearly all calls
# over τ (dotted) and the next step takes it back: nearly all along, guided estimates (solid blue)
# stand hardly above unguided ones (grey). On Hopper δ lifts fewer as the noise falls, in the short
# chain to its last δ. In the long one this turns in the middle: later steps keep part of what was
# added before, and soon both blue lines rise together.
#
# Given nothing but the noise in the data, the closed form tells on which robot more of a small
# perturbation is kept; by how much, it tells only roughly (above). What it does not tell is the
# share: a push that is large enough, or repeated often enough, leaves something behind even where
# most of it is taken back. Whether that is the gate's merit is for the controls of equal power to
# say, a line a robot and chain.
#
# ### What it costs
#
# A guided sub-policy needs its n − 1 neighbours in its own state, so acting with one costs n plans;
# alone, an unguided one costs one. The table counts them as sequences, which is exact. The
# milliseconds are rough: a call plans all sequences at once, so the time need not grow n times, and
# it was taken while this page ran, whatever else the machine did.
#
# And noise on actions can cost return. In the figure a dot is a sub-policy, a bar their mean. The
# sets of the long chain play half as many episodes as those of the short one, so columns compare
# only within one chain length: a difference between the two sides of the dotted line may be one of
# episodes.

# %%
times = pd.concat(guidance_robots.time_table(robot, (STRONG, LONG)) for robot in first)
times.round(1)

# %%
played = [guidance_robots.returns_table(robot) for robot in first]
returns = pd.concat(part for part, _ in played)
return_runs = [run for _, found in played for run in found]
here.draw("04_robot_returns", returns, return_runs, task=both)

# %%
grouped = returns.groupby(["task", "setting", "set"], sort=False)["score"]
grouped.agg(["mean", "min", "std"]).round(1)

# %%
notes = dict.fromkeys(f"- {note}" for robot in first for note in robot.study.task.robot.notes)
Markdown(
    f"One seed, up to {here.budget.curve_episodes} episodes a sub-policy: this describes, it does "
    "not decide (*inconclusive*).\n\n" + "\n".join(notes)
)

# %% [markdown]
# ## Do plans that differ act differently?
#
# div compares plans. What do they become? All sub-policies are put into the same logged state of
# the simulator and act for 16 steps. Their *executed trajectories* are compared by the formula of
# div on standardised states, and by plain RMS distance. Within each state the pairs of sub-policies
# are ranked, once by their plans and once by their trajectories; ρ is Spearman's, averaged over
# states. In the figure a dot is a seed, and its bar the interval over states.
#
# **Expectation.** If div measures behaviour, it ranks pairs as their trajectories do, and better
# than the plain distance of plans, which knows nothing of motion.

# %%
found = [executed.correlation_table(robot, (8, 16)) for robot in everyone]
correlations = pd.concat(part for part, _ in found)
way_runs = [run for _, part in found for run in part]
here.draw("04_executed", correlations, way_runs, task=both)

# %%
longest = correlations[correlations["horizon"] == 16]
rho = longest.groupby(["task", "plan", "executed"], sort=False)["rho"].mean().unstack()
rho.round(2)


# %%
def advantage(task: str, measure: str) -> list[float]:
    part = longest[(longest["task"] == task) & (longest["executed"] == measure)]
    wide = part.pivot(index="seed", columns="plan", values="rho")
    return (wide["div"] - wide["rms"]).tolist()


lines = [
    f"- {task}, {what}: {statistics.verdict(advantage(task, measure))}"
    for task in TASKS
    for measure, what in (("div", "div of trajectories"), ("rms", "distance of trajectories"))
]
Markdown("**Verdict: plans' div ranks better than plans' distance.**\n\n" + "\n".join(lines))

# %% [markdown]
# **What to see.** div of plans asks how differently the robot *moves*; where it *gets* is another
# question, and the plain distance of plans, which a constant offset does not escape, may answer it
# better: the table and the verdict say. What keeps ρ below 1 is the body, which filters actions.
#
# Guidance raises div of plans by design. Are the trajectories further apart as well?

# %%
walked = [executed.trajectories_table(robot) for robot in everyone]
ways = pd.concat(part for part, _ in walked)
steps_spent = int(ways["steps"].sum())
assert all(run.record["environment"] for _, made in walked for run in made)  # steps are counted
ways.groupby(["task", "set"], sort=False).mean(numeric_only=True).drop(columns="seed").round(2)

# %%
means = ways.groupby(["set", "task"]).mean(numeric_only=True)
ratio = means.loc["guided"] / means.loc["unguided"]
lines = [
    f"- {t}: div of plans × {row.plan_div:.2f}, of trajectories × {row.executed_div:.2f}, "
    f"distance of trajectories × {row.executed_rms:.2f}"
    for t, row in ratio.iterrows()
]
Markdown(
    f"**Result, guided over unguided, {STRONG}:**\n\n"
    + "\n".join(lines)
    + f"\n\nThis took {steps_spent:,} steps in the environments."
)

# %% [markdown]
# ## The KL-style term
#
# Beside the perturbation the paper keeps a term from Uni-O4, lifted from actions to sequences, with
# a weight α:
#
# $$J(\pi^i) = \mathbb E_D\big[\log p^i(a \mid s)\big]
# + \alpha\, \mathbb E_D\Big[\log \frac{p^i(a \mid s)}{\max_j p^j(a \mid s)}\Big]$$
#
# For sub-policies that differ only in their seed there is nothing to put into it. Given its
# noise, a sub-policy is a point mass, and the ratio is undefined; with the noise integrated out
# all share one θ, and the ratio is exactly 1, its logarithm 0. So α = 0 here by default (A5).
#
# For policies with parameters of their own, Gaussians for example, the term exists. It comes in
# three forms, each a line of `uepo_lib/diversity.py` over log-probabilities of n members:
#
# | form | on | the line |
# |---|---|---|
# | `printed_term` | data | `log_p - maximum(log_p, best_of_others(log_p).detach())` |
# | `shipped_term` (Uni-O4's code) | data | `log_p - best_of_others(log_p).detach()` |
# | `separating_term` (ours) | samples a ~ π^i | `own - (of_all.logsumexp(0) - log(n))` |
#
# Three samples and two members, small enough for a pencil:

# %% tags=["nbval-check-output"]
small = torch.tensor([[0.0, -1.0, -4.0], [-2.0, -1.5, -1.0]])
print("printed\n", diversity.printed_term(small).numpy())
print("shipped\n", diversity.shipped_term(small).numpy())
own_share = diversity.separating_term(small[0], small)
print("separating, were the samples member 0's:", own_share.numpy().round(3))
assert own_share.max() <= torch.tensor(2.0).log()

# %% [markdown]
# ### What the gradient sees
#
# It matters what the gradient flows through. If the denominator is a constant (detached), it has
# no gradient, and the term repeats the first one: cloning with a larger step, and no diversity.

# %%
generator = torch.Generator().manual_seed(0)
states, actions, other = (
    torch.randn(*shape, generator=generator, dtype=torch.float64)
    for shape in ((256, 3), (256, 2), (3, 2))
)
one = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)


def log_p(weight: torch.Tensor) -> torch.Tensor:
    return Normal(states @ weight, 0.5).log_prob(actions).sum(-1)


best = torch.maximum(log_p(one), log_p(other))
(clone,) = torch.autograd.grad(log_p(one).mean(), one)
for alpha in (0.1, 1.0, 10.0):
    objective = log_p(one).mean() + alpha * (log_p(one) - best.detach()).mean()
    (gradient,) = torch.autograd.grad(objective, one, retain_graph=True)
    torch.testing.assert_close(gradient, (1 + alpha) * clone, rtol=1e-12, atol=1e-12)

# %% [markdown]
# If the gradient flows through the maximum as well, samples on which this policy is already the
# best drop out of the term. What is left pulls it towards the data that another member explains
# better:

# %%
behind = log_p(one) < log_p(other)
(attached,) = torch.autograd.grad((log_p(one) - best).mean(), one)
(towards,) = torch.autograd.grad(log_p(one)[behind].sum() / len(behind), one)
torch.testing.assert_close(attached, towards, rtol=1e-12, atol=1e-12)
assert (log_p(one) - best).mean() < 0 and 0 < int(behind.sum()) < len(behind)

# %% [markdown]
# The term is never positive, and 0 when no member is behind on any sample: summed over members it
# is largest when all are equal. As printed it rewards agreement.
#
# A larger step may still be something. Adam, however, divides a gradient by its own size, so that
# a constant factor drops out. Train four Gaussians on the four doors, 100 steps of Adam in double
# precision, its ε next to 0, without weight decay and without clipping the gradient.
#
# **Expectation.** With the shipped form every parameter is that of plain cloning, to rounding and
# at any α. With the printed form it is not.

# %%
adam = forms.adam_table(toy, (0.0, 0.1, 10.0))
apart = adam.set_index(["form", "alpha"])["difference"]
assert apart["shipped"].max() < 1e-10 < 1e-3 < apart["printed"][[0.1, 10.0]].min()
adam

# %% [markdown]
# `difference` is the largest gap between any parameter and plain cloning's; `moved` is how far
# cloning itself carried a parameter from where it began. Published ensembles owe their diversity
# to their initial weights: the code gives all members the same minibatches, and so does
# `diversity.train_ensemble`.
#
# ### What is largest where
#
# Two members N(−δ, 1) and N(δ, 1), and data from N(0, 1). With the expected distance from the
# mean, E|a| = √(2/π), everything is a closed form. Per member, less its value at δ = 0,
#
# $$J_{printed} = -\frac{\delta^2}{2} - \alpha\,\delta\sqrt{2/\pi}, \qquad
# J_{separating} = -\frac{\delta^2}{2} + \alpha\, \mathrm{JS}(\delta), \qquad
# \mathrm{JS}(\delta) \approx \frac{\delta^2}{2}.$$
#
# JS is the Jensen–Shannon divergence of the two, the mean of `separating_term` on their samples;
# it never exceeds log 2, and the parabola is for small δ. As printed, J is largest at δ = 0 for
# every α. In the separating form two parabolas compete near 0, and equal members stop being the
# best at α = 1.

# %%
here.draw("04_diversity_objective", forms.objective_table((0.5, 1.0, 2.0)), task="closed form")

# %% tags=["nbval-check-output"]
curve = forms.objective_table((0.0, 0.5, 0.9, 1.1, 2.0, 10.0))
best_delta = curve.loc[curve.groupby(["form", "alpha"])["gain"].idxmax()]
print(best_delta.set_index("form")[["alpha", "delta", "js"]].round(3).abs())
assert (best_delta[best_delta["form"] == "printed"]["delta"] == 0).all()
beyond = best_delta[best_delta["form"] == "separating"].set_index("alpha")["delta"]
assert (beyond[:0.9] == 0).all() and (beyond[1.1:] > 0).all() and beyond.is_monotonic_increasing
assert curve["js"].max() <= torch.tensor(2.0).log()

# %% [markdown]
# The threshold is no accident of this example. Where all members fit the data best, the curvature
# of the likelihood is minus the Fisher information, for a Gaussian whatever the data are. The
# curvature of the divergence is plus the Fisher information. So at Uni-O4's α = 0.1 even the form
# that separates should separate nothing.
#
# ### Gaussians on the four doors
#
# Ensembles of four, several seeds, each form against α. A set of walks *reaches* a door if one of
# them ends nearer to it than to where it began; means are judged.
#
# **Expectation.** Printed and shipped stay where cloning is, the printed form a little closer
# together. The separating form departs at α = 1 and pays in likelihood. It does not find doors: of
# the data, a Gaussian's likelihood knows the mean and the variance, which point to no door.

# %%
quick = here.profile == "smoke"
kl_seeds = range(2 if quick else 5)
alphas = (0.1, 10.0) if quick else (0.1, 1.0, 10.0)
gaussians = forms.gaussian_table(toy, alphas, kl_seeds, num_updates=40 if quick else 300)
here.draw("04_diversity_gaussians", gaussians, task="toy, four doors", seeds=list(kl_seeds))

# %%
gaussians.groupby(["form", "alpha"], sort=False).mean().drop(columns="seed").round(3)


# %%
def gains(table, column, one, other, margin=0.0):
    """``one`` less ``other``, both (form, α), by seed, less the margin named beforehand."""
    pairs = zip(forms.of(table, column, *one), forms.of(table, column, *other), strict=True)
    return [a - b - margin for a, b in pairs]


log_n, clone = float(torch.tensor(4.0).log()), ("none", 0.0)
asked = {
    "Separating, α = 10, above cloning, divergence": ("js", ("separating", 10.0), clone, 0.0),
    "Separating, α = 0.1, by a tenth of log n": ("js", ("separating", 0.1), clone, log_n / 10),
    "Separating, α = 10, half a door more": ("doors", ("separating", 10.0), clone, 0.5),
    "Cloning further apart than printed, α = 10": ("distance", clone, ("printed", 10.0), 0.0),
}
rows = [f"- *{what}:* {statistics.verdict(gains(gaussians, *how))}" for what, how in asked.items()]
Markdown("**Verdict**, paired by seed, 95 % intervals:\n\n" + "\n".join(rows))

# %%
assert gaussians["js"].max() <= log_n + 1e-6
shipped = max(abs(g) for g in gains(gaussians, "js", ("shipped", 10.0), clone))
assert shipped < 0.01
if not quick:
    assert min(gains(gaussians, "js", ("separating", 10.0), clone)) > 0.5
    assert max(gains(gaussians, "js", ("separating", 0.1), clone)) < 0.1 * log_n
    assert gaussians["doors"].max() < 1

# %% [markdown]
# ### A diffusion policy with embeddings
#
# A diffusion model knows the doors. To give its sub-policies distributions of their own, each gets
# an embedding e_i, added to the vector that scales and shifts every layer (FiLM); all other weights
# are shared (`uepo_lib/embedding.py`). Embeddings start at zero on a trained model, which is then
# that model n times. In place of log p^i stands the variational bound, with the same noise for all
# members.
#
# Four embeddings, from fresh noise, under each form. *Constancy* is the share of states in which a
# member heads for its own most frequent door; 1/4 would be none. The divergence of plans is
# estimated from bounds, so it can fall slightly below 0. The control is told: member m learns from
# the walks to door m only.
#
# **Expectation.** Only the separating form beyond α = 1 makes the members' plans differ. If it
# does so by doors, four members reach at least half a door more than without it.

# %%
tried = [("none", 0.0), ("printed", 2.0), ("shipped", 2.0)]
tried += [("separating", alpha) for alpha in ((2.0,) if quick else (0.5, 2.0))]
tried += [(members.ORACLE, 0.0)]
updates = (40, 15) if quick else (500, 200)  # of the plain model, of the embeddings
embedded = members.embedding_table(toy, tried, kl_seeds, *updates)
here.draw("04_diversity_embedding", embedded, task="toy, four doors", seeds=list(kl_seeds))

# %%
embedded.groupby(["form", "alpha"], sort=False).mean().drop(columns="seed").round(2)

# %%
two = ("separating", 2.0)
asked = {
    "Separating, α = 2, above cloning, divergence of plans": ("js", two, clone, 0.0),
    "Printed, α = 2, above cloning, divergence of plans": ("js", ("printed", 2.0), clone, 0.0),
    "Separating, α = 2, half a door more": ("doors", two, clone, 0.5),
    "Told its door, half a door more": ("doors", (members.ORACLE, 0.0), clone, 0.5),
}
rows = [f"- *{what}:* {statistics.verdict(gains(embedded, *how))}" for what, how in asked.items()]
Markdown("**Verdict**, paired by seed, 95 % intervals:\n\n" + "\n".join(rows))

# %%
at = embedded.groupby(["form", "alpha"])[["js", "mode_js", "offset", "nll", "objective"]].mean()
plain, apart, told = (at.loc[which] for which in (clone, two, (members.ORACLE, 0.0)))
Markdown(
    f"**Result, {len(kl_seeds)} seeds.** The separating form reaches {apart.js / log_n:.0%} of "
    f"log n in plans and {apart.mode_js / log_n:.1%} in doors. The mean plans of two members, "
    f"around a mode, lie {apart.offset:.1f} standard deviations of the data apart "
    f"(cloning: {plain.offset:.1f}), which costs {apart.nll - plain.nll:.1f} nats of likelihood a "
    f"plan. To be told a door costs {told.nll - plain.nll:.0f}; the printed J, at α = 2, is "
    f"{plain.objective:.0f} for cloning, {apart.objective:.0f} for the separating form and "
    f"{told.objective:.0f} for the control that holds a door each."
)

# %%
assert embedded[["js", "mode_js"]].max().max() <= log_n + 1e-5
if not quick:
    assert min(gains(embedded, "js", two, clone)) > 0.5
    assert max(forms.of(embedded, "mode_js", *two)) < 0.2
    assert min(forms.of(embedded, "constancy", members.ORACLE, 0.0)) > 0.9
    assert at["objective"].idxmin() == (members.ORACLE, 0.0)

# %% [markdown]
# **What to see.** The first panel is what the term asks for, and beyond α = 1 the separating form
# delivers it. The second shows that none of it is doors. Members differ by an *offset*
# within every mode: summed over all steps of a plan, small shifts tell any two of them apart at a
# small price in likelihood. Giving up a door costs more, since E_D[log p^i] charges every member
# for every walk in the data that it cannot explain. Of all rows, the one that reaches all four
# doors has the lowest J.
#
# A divergence of distributions is not a divergence of behaviour. This is the toy's version of what
# div did with noise: the objective is met in the cheapest way, and the cheapest way is no new mode.
#
# ## What fails
#
# - **div rises, behaviour does not.** Noise is the cheapest divergence. Watch low-passed div and
#   the noise floor beside it.
# - **The gate is always open, or never.** τ from another set, κ or dataset is in no unit that
#   carries over; recalibrate it on the unguided set.
# - **Quiet data.** There the reverse process takes most of a perturbation back, and what is left at
#   τ costs a large η. `survival.survival` says how much is kept before anything is guided.
# - **Guided sub-policies that are deployed alone.** Without their neighbours they are the
#   unguided ones; guidance is for generating data (notebook 05), and AM-Q chooses among unguided
#   ones.
