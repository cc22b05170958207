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
# # 16 · Trade-offs: how should n, η, τ, the ratio and |D| be set? (E7, E9)
#
# **Question.** The method has dials: the number $n$ of sub-policies, $\eta$ and $\tau$ of the
# guidance, the ratio $|D_{diff}| / |D|$. Which of them buys something, what does it cost, and how
# much data does the method need?
#
# **Paper.** $\sigma_{div} = \eta\,(\tau - div)/\tau$ where $div < \tau$; $|D_{diff}|$ is 2 to 3
# times $|D|$. No sweep of any dial is given. The method is said to reduce the need for expert data.
#
# **Our choices.** One dial at a time, the others at their defaults, but for the last question (E9):
# it has smaller budgets and a ratio of its own. $\tau$ in units of its
# calibrated value (A4); $\eta$ as printed, the same at every reverse step. $n$ is read off E1, on
# the first of its tasks, and the ratio off E2, from the same runs as in notebooks 10 and 11.
#
# **Run time** beyond shared runs: half a minute at `smoke`, about ten minutes on two cores at
# `laptop`.
#
# **Inputs.** Hopper-medium: the diffusion policy of each seed; slices of D, the largest of them all
# but the episodes that are held out elsewhere. E1's and E2's runs.
#
# **Outputs.** Two figures with their tables, and two tables of verdicts.

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop

# %%
import pandas as pd
import torch
from IPython.display import Markdown

from uepo_lib import notebook
from uepo_lib.divergence import Guidance, GuidanceConfig
from uepo_lib.expectations import listed
from uepo_lib.experiments import data_need as e9
from uepo_lib.experiments import multi_seed, ratios, seed_sets
from uepo_lib.experiments import tradeoffs as e7
from uepo_lib.figures import tradeoffs as drawn
from uepo_lib.stages import Study
from uepo_lib.statistics import with_intervals

# %%
outputs = [p for n in ("dials", "data_need") for p in (f"figures/16_{n}.png", f"tables/16_{n}.csv")]
outputs += ["tables/16_claims.csv", "tables/16_needs_less.csv"]
here = notebook.start("16_tradeoffs", profile, outputs)
studies = [Study(e7.TASK, seed, here.profile, progress=False) for seed in here.budget.seeds]

# %% [markdown]
# ## Which way τ works
#
# A threshold looks like a tolerance: raise it, and more closeness is tolerated. The printed rule
# says the reverse, because $\tau$ is the distance that is *demanded*: a higher one perturbs more
# ([04](04_divergence.ipynb) differentiates the rule). Two sequences, four thresholds:

# %% tags=["nbval-check-output"]
t = torch.arange(8.0)
pair = torch.stack([0.3 * torch.sin(t), 0.5 * torch.sin(t)])[:, None, :, None]  # (n, B, T, A)
xi = torch.zeros(2, 5, 8, 1)
rows = []
for tau in (0.1, 0.2, 0.4, 0.8):
    guidance = Guidance(GuidanceConfig(tau, eta=0.5, eta_schedule="constant"), xi)
    sigma = float(guidance.sigma(pair, 0)[0, 0])
    rows.append((tau, round(float(guidance.distance(pair)[0, 0]), 4), round(sigma, 4)))
rule = pd.DataFrame(rows, columns=["τ", "div", "σ_div"])
rule

# %%
assert rule["σ_div"].is_monotonic_increasing
assert rule["σ_div"].max() < 0.5  # η is its limit: however high τ is, σ stays below η

# %% [markdown]
# ## η and τ on a robot
#
# **Expectation**, written before the runs: the perturbation grows with $\eta$ and with $\tau$;
# plans move apart, what is done moves less; return falls on a robot that has to keep its balance.
#
# In the table `power` is the root mean square of the push on $\hat x_0$, in units of an action;
# `reached` the share of 256 logged states in which all plans are at least the calibrated $\tau$
# apart; `div` that to the nearest plan; `executed_rms` the distance of executed trajectories (RMS,
# in standard deviations of a state); `score` the members' mean. A dial's 0 is the unguided set.

# %%
parts = [e7.dials_table(study) for study in studies]
dials = pd.concat([table for table, _ in parts], ignore_index=True)
dial_runs = [run for _, runs in parts for run in runs]
dials.groupby(["dial", "value"]).mean().drop(columns="seed").round(3)

# %%
Markdown(listed(e7.expected(dials)))

# %%
said = e7.verdicts(dials)
here.table(with_intervals(said), "16_claims", dial_runs, task=e7.TASK)
Markdown(f"From a dial's lowest value to its highest, + where it holds:\n\n{e7.told(said)}")

# %%
lowest = dials[dials["value"] > 0].groupby(["dial", "seed"])["power"].first()
highest = dials.groupby(["dial", "seed"])["power"].last()
assert (highest["tau"] > lowest["tau"]).all()  # as the formula has it, on every seed

# %% [markdown]
# ## How much data
#
# **Expectation**: all learners lose by fewer data. Choosing among noises does not make up for it,
# since the $\hat T$ and $Q$ that choose are learnt from the same few.
#
# Each learner is given one slice of D and nothing else but the scale of states, which is that of
# all of D. The clone and the diffusion policy learn from the whole slice. *UEPO, selected* is the
# offline phase of Algorithm 1 on it: the critic learns from all of it, $\hat T_{init}$ from nine
# tenths, while the last tenth chooses its weights and sets the filter's reference; $D_{diff}$ comes
# from that $\hat T_{init}$ and is a multiple of the slice (printed below); $(i, \kappa)$ is chosen
# by AM-Q in the $\hat T$ of both. (First tables had been seen when UEPO was given its $D_{diff}$
# here, and lost a held-out part of D that chose for it.)
#
# The claim needs two questions of the table: is $\pi^*$ ahead of plain cloning, and further ahead
# with fewer data? A third says whether selection works. Zero noise is one of the candidates, so a
# $\pi^*$ that loses to it with the most data, by more than two points on average, was chosen badly,
# and a lead that grows from there says nothing of data: then the claim is not testable. (This rule
# was added when a table had been seen.) All learners make fewer
# updates here than in 12, not all by the same factor, and D_diff has a ratio of its own: a lead is
# to be compared with the leads at other shares of D, not with those in 12, and its level says
# little. Thin lines in the figure are one seed each, the bold line is their mean.

# %%
grid, sizes = e9.grid_of(here.profile), here.budget
Markdown(
    f"Updates here and in 12: diffusion {grid.diffusion:,} and {sizes.diffusion_updates:,}, clone "
    f"{grid.clone:,} and {sizes.clone_updates:,}, critic {grid.critic:,} and "
    f"{sizes.critic_updates:,}, T̂ {grid.dynamics:,} and {sizes.dynamics_updates:,}. "
    f"|D_diff| / |D|: {grid.ratio:g} and {sizes.augmentation_ratio:g}."
)

# %%
slices = e9.slices(here.profile)
few = slices.iloc[0]
Markdown(
    f"There is **one slice of each share**, the same for every seed: at {few['share']:.0%} of D "
    f"{few['episodes']:.0f} episodes, the last one cut. Intervals over seeds hold the luck of "
    "learning and of playing, not that of the slice."
)

# %%
data, data_runs = e9.run(here.profile)
here.draw("16_data_need", data, data_runs, task=e9.TASK)

# %%
Markdown(listed(e9.expected(data)))

# %%
needed = e9.needs_less(data)
shown = with_intervals(needed)
here.table(shown, "16_needs_less", data_runs, task=e9.TASK)
shown.round({"gain": 1, "low": 1, "high": 1})

# %%
Markdown(e9.told(needed))

# %% [markdown]
# ## All dials on one page
#
# A panel shows what turning a dial buys, on the task in its title. Thin lines are seeds. For $n$,
# *fresh noise* is what n equal policies would show; for the ratio, D_diff from the *simulator* is
# privileged. What $n$, the ratio and the data cost is counted, not measured, and stands below each
# value: of $n$, the episodes in the environment that choose the best by its return. What $\eta$ and
# $\tau$ cost is measured: the last row is the score, and its fall below the unguided set is the
# cost.

# %%
e1 = seed_sets.grid_of(here.profile)
played = [Study(e1.tasks[0], seed, here.profile, progress=False) for seed in here.budget.seeds]
seeds_tables = [multi_seed.returns_table(study, e1) for study in played]
returns = pd.concat([table for table, _ in seeds_tables], ignore_index=True)
seed_runs = [run for _, runs in seeds_tables for run in runs]
ratio, ratio_runs = ratios.run(here.profile)
page = drawn.dials_page(returns, e1.episodes, dials, ratio, data)
shown_on = ", ".join(dict.fromkeys(page["task"]))
here.draw("16_dials", page, [*seed_runs, *dial_runs, *ratio_runs, *data_runs], task=shown_on)

# %%
whole = returns[returns["n"] == e1.n].groupby("set")["other_half"].mean()
zero = returns.loc[returns["set"] == seed_sets.ZERO, "mean"].mean()
Markdown(
    f"What the best of n has to beat: *one* policy of zero noise, which needs no choice, scores "
    f"{zero:.1f} on {e1.tasks[0]}; the best of {e1.n} seeds "
    f"{whole[seed_sets.fixed(1.0)]:.1f}, the best of as many equal policies "
    f"{whole[seed_sets.FRESH]:.1f}."
)

# %% [markdown]
# **How to read it for your own task.** A dial is worth turning as long as what it buys rises,
# beyond the spread of its seeds and, where one is drawn, beyond the control, and you can afford the
# cost: what is counted for $n$, the ratio and the data, the loss of score for $\eta$ and $\tau$.
# These two have no control here; whether noise of equal power moves what is done as far is asked in
# [10](10_multi_seed_ablation.ipynb).
