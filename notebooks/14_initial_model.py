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
# # 14 · The initial model: how good must T̂_init be? (E5)
#
# T̂_init is the dynamics model fitted to the logged data D; T̂ the one fitted to D and D_diff, which
# holds trajectories of the diffusion policy in T̂_init or in the simulator
# ([05](05_augmentation.ipynb)).
#
# **Concept.** A model that judges its own training data is a loop. What it believes decides what it
# is shown, and what it is shown decides what it believes next. A *bias* need not die out in such a
# loop.
#
# **Question.** T̂_init is wrong in a systematic way: it believes that the motors give 0.8 of their
# torque. Does a filter that keeps what agrees with T̂_init ever let it find out?
#
# <details><summary>Answer</summary>
#
# In a linear world it depends on two numbers. The filter refuses the real trajectories that
# contradict T̂_init most. So the kept ones alone still carry a share λ of the bias: 0 without a
# filter, near 1 with a strict one. But T̂ is fitted to D ∪ D_diff, and D itself contradicts the
# bias, with weight one over one plus the ratio. So where D is right the bias shrinks in every
# round, only more slowly than it could; where D is wrong too, nothing but refused transitions could
# have told. What Hopper shows is measured below.
#
# </details>
#
# **Paper.** Open question 2: the fidelity of T̂_init. T̂_init filters by KL(real dynamics ‖ T̂_init)
# < ε and T̂ is trained on D ∪ D_diff; nothing is said of how good T̂_init must be.
#
# **Our choices.** A6 (excess KL over the median of held-out real sequences; random acceptance at
# equal volume), A7 (both sources), A8 (ratio 2, where so much passes the filter). D is a tenth of
# the logged steps that are not held out, always the same. T̂_init is fitted to 1 % of them, to that
# tenth (10 %), or to all (100 %): worse than D allows, as good as it allows, better. A fourth,
# *biased* T̂_init is fitted to all, with actions divided by 0.8. A wrong motor gain has a cause in
# the world; the alternative, next states shifted along a fixed direction, has none.
#
# **Run time.** About half a minute at `smoke`, a few seconds at `laptop` beyond its runs, which
# take six to eleven core-minutes.
#
# **Inputs.** Hopper-medium, its diffusion policy and its logged simulator states.
#
# **Outputs.** Four figures and their tables, all named `14_*`, and a table of verdicts.

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from uepo_lib import notebook
from uepo_lib.experiments import initial_expected as e5_expected
from uepo_lib.experiments import initial_model as e5
from uepo_lib.experiments import initial_verdict as says
from uepo_lib.experiments.sensitivity_verdict import counted
from uepo_lib.figures.initial_model import START, toy_table
from uepo_lib.filter_bias import LinearWorld

# %%
drawn = ["toy", "kept", "gain", "rounds"]
outputs = [path for d in drawn for path in (f"figures/14_{d}.png", f"tables/14_{d}.csv")]
here = notebook.start("14_initial_model", profile, [*outputs, "tables/14_verdicts.csv"])
grid, task = e5.grid_of(here.profile), "hopper-medium, slice"

# %% [markdown]
# ## A world in which everything is known
#
# $s' = a s + g u + w$ with $u \sim \mathcal N(0, \tau^2)$ and $w \sim \mathcal N(0, \sigma^2)$; τ
# is here the spread of the actions, σ that of the noise. T̂ believes $\hat g = g + b$, so on a real
# step it meets the residual $e = w - b u$ of variance $v = b^2\tau^2 + \sigma^2$. The filter bounds
# the mean of $\tfrac12 e^2 / \sigma^2$ over H steps, which truncates the residuals to a ball. With
# $q$ the variance of a kept residual over $v$ and $\rho^2 = b^2\tau^2 / v$ (no rank correlation),
# least squares on kept steps alone finds a gain whose bias is $\lambda b$,
#
# $$q = \frac{F_{\chi^2_{H+2}}(K)}{F_{\chi^2_H}(K)}, \qquad
# \lambda = \frac{(1 - q)(1 - \rho^2)}{1 - (1 - q)\rho^2}.$$
#
# $K$ is the ball's squared radius over $v$ (`uepo_lib/filter_bias.py`). Without a filter $q = 1$
# and nothing of the bias is left; the stricter the filter, the nearer $\lambda$ is to 1.

# %% tags=["nbval-check-output"]
world, literal = LinearWorld(), LinearWorld(median=False)
for name, one in (("over the median", world), ("ε alone", literal)):
    generator = torch.Generator().manual_seed(0)
    kept, after = one.simulated(1.0, 2.0, "simulator", 400_000, generator)
    told = one.next_bias(1.0, 2.0, "simulator")
    print(f"{name + ':':17s} kept {one.kept(1.0):.3f}, λ {one.remaining(1.0):.3f}, "
          f"bias after a round {told:.3f}")  # fmt: skip
    assert abs(kept - one.kept(1.0)) < 0.005 and abs(after - told) < 0.01

# %% [markdown]
# Draws and least squares agree with the closed form (asserted). As the paper's text reads, ε alone
# bounds the KL: a strict filter. Measured *over the median* (A6) it passes half of all real
# trajectories, however wrong T̂ is, since the median moves with the bias.
#
# **Rounds.** T̂ is fitted to D and to D_diff with weights 1 and ratio. If D is right,
#
# $$b_{r+1} = \frac{\text{ratio}\; I\, \lambda\, b_r}{\tau^2 + \text{ratio}\; I}, \qquad
# I = \mathbb E[u^2 \mid \text{kept}];$$
#
# T̂'s own transitions have $\lambda = 1$, $I = \tau^2$: at ratio 2 two thirds remain a round.

# %%
worlds = [world, literal, LinearWorld(horizon=50)]
toy = toy_table(worlds, np.linspace(0.05, 2, 40).tolist(), ratio=2.0, count=6)
here.draw("14_toy", toy, task="toy, one dimension", seeds=[])

# %% tags=["nbval-check-output"]
for source in ("model", "simulator", "unfiltered"):
    right = world.rounds(START, 2.0, source, 6)
    stuck = world.fixed_point(2.0, source, logged=START)
    print(f"{source:10s} D right, rounds 1, 3, 6: {right[1]:.3f} {right[3]:.3f} {right[6]:.3f}; "
          f"D wrong, fixed point: {stuck:.3f}")  # fmt: skip
    assert right == sorted(right, reverse=True)
assert abs(world.fixed_point(2.0, "model", START) - START) < 1e-9
assert abs(world.fixed_point(2.0, "unfiltered", START) - START / 3) < 1e-9

# %% [markdown]
# **What to see.** Nothing here *reinforces* a bias: $\lambda \le 1$, so no round adds to it. With D
# right, all three lines fall to zero, T̂'s own transitions slowest. With D wrong too, T̂'s own keep
# all of it, unfiltered real ones leave D's share, a third, and the filter leaves more than that. A
# mean over many steps is a blunt filter where errors are independent (H = 50); on a robot they are
# not ([05](05_augmentation.ipynb)).
#
# ## Hopper: what each T̂_init keeps
#
# **Expectation.** The median rule keeps the *number* of accepted trajectories alike for all; which
# ones, T̂_init decides: those that it predicts well. What it predicts well can be seen on the
# simulator's trajectories alone; of its own it knows no truth.

# %%
table, runs = e5.run(here.profile)
one_step = table[table["step"] == 1]
first = one_step[(one_step["round"] == 1) & (one_step["real"] == "D")]
filtered = first[first["acceptance"] == "kl"]
here.draw("14_kept", filtered, runs, task=task)

# %%
study = e5.cells(here.budget.seeds[0], here.profile).study
budget = pd.Series({
    "real transitions of D": f"{study.size:,}",
    "D_diff wanted": f"{int(one_step['wanted'].max()):,}",
    "gradient steps of every model": f"{grid.updates:,}",
    "network": " × ".join(map(str, grid.hidden)),
    "gain that the biased T̂_init believes": f"{grid.gain:g}",
})  # fmt: skip
assert (table["volume"] <= table["wanted"]).all()
budget.to_frame("E5")

# %%
columns = ["passing", "kept_error", "refused_error"]
kept = filtered.groupby(["source", "init"], sort=False)[columns].mean()
kept.round(3)

# %%
real = kept.loc["simulator"]
Markdown(
    "**Result.** T̂_init's true error on refused over that on kept simulator trajectories: "
    + ", ".join(f"{x:.1f} ({name})" for name, x in
                (real["refused_error"] / real["kept_error"]).items())
    + ". Below 1 the filter does not even keep what T̂_init predicts best. "
    + says.kept_says(kept)
)  # fmt: skip

# %% [markdown]
# ## What it gives
#
# Every T̂ below learns the same D; its error is compared with that of D alone, at equal gradient
# steps. Above the dotted line D_diff has helped.
#
# **Expectation.** First, with the experiment's code: transitions of a poor T̂_init harm more than
# those of a good one, and no D_diff from a model beats D alone. Added with this page: from a T̂_init
# of 1 % model transitions do harm; the biased one harms by its bias, not by its noise; simulator
# transitions are real, and T̂_init only chooses among them: little depends on it. The page also
# said that those of a T̂_init that knows ten times D *may* help, as distilled data would. That
# contradicts the first and does not count.
#
# Ratio 2 is what is wanted. Below each T̂_init the figure says how much of that volume passed its
# filter; "at random" is given no more. [11](11_epsilon_sensitivity.ipynb) leaves a seed out that
# fills less than nine tenths, since its question is the ratio. Here what passes is a part of what a
# T̂_init gives, so all stay; but T̂ with less D_diff sees more of D in equally many gradient steps,
# so between sources a gain is one of the volume as well.
#
# Simulator transitions drawn *at random* do not depend on T̂_init at all: the same steps teach T̂ in
# every column.

# %%
gained = says.gains(table)
here.draw("14_gain", gained, runs, task=task)

# %%
same = gained[gained["real"] == "D"]
share = (same["volume"] / same["wanted"]).groupby(same["source"], sort=False).agg(["min", "max"])
Markdown("Of the wanted volume each T̂ on D was given " + "; ".join(
    (f"{low:.0%} to " if f"{low:.0%}" != f"{high:.0%}" else "") + f"{high:.0%} ({source})"
    for source, low, high in share.itertuples()
) + ", by seed and T̂_init.")  # fmt: skip

# %%
helped = says.helps(gained)
helped[helped["step"] == 1].pivot_table(
    index=["source", "acceptance"], columns=["real", "init"], values="mean", sort=False
).round(2)

# %% [markdown]
# The table is of errors one step ahead. Columns "own": T̂ on T̂_init's *own* slice and D_diff,
# against T̂_init. From the 1 % one it says what augmentation can do for a model that has very
# little.

# %%
quality = says.quality(gained)
by_source = quality.groupby("source", sort=False)["mean"].mean()
Markdown(
    f"**A better T̂_init makes a better T̂: {counted(quality)}.** From the 1 % to the 100 % "
    "T̂_init, T̂'s error changes by a factor of "
    + ", ".join(f"{2**-gain:.2f} ({source})" for source, gain in by_source.items())
    + ", D and gradient steps being equal, volumes not quite: those that passed."
)

# %%
lines = e5_expected.expected(gained)
Markdown(
    "**As expected?** Gains are log2, means over tests. Met: in every seed; not met: in none; else "
    "open.\n\n" + "\n".join(f"- {line}" for line in lines)
)

# %% [markdown]
# ## Does a bias feed itself?
#
# The ruler: held-out states are stepped once more with 0.8 of their action, and T̂'s prediction is
# projected on the line from the right next state (0) to the wrong one (1). A T̂ that has not learnt
# what actions do lies far beyond 1, at $1/(1 - 0.8)$. Thin lines are seeds, bold ones their mean;
# the grey dotted line near 0 is T̂ on D alone, that at 1 the wrong gain, and the dashes are what
# the linear world expects of T̂'s own transitions.
#
# Each round generates from, or filters by, the T̂ of the round before, and fits T̂ to D and the new
# D_diff. Simulator trajectories are always the same ones, judged anew. The linear world is computed
# at the volumes that passed, not at the wanted ratio: changed after one seed, whose D_diff stayed
# small.
#
# **Expectation.** As in the toy: model transitions keep two thirds a round, random real ones
# nothing, the filter something between. "Where the ratio is filled" was added to the first after
# that seed; that this means the nine tenths of 11, in every round, and that the expectation is else
# *not reached*, was added when all seeds had been seen. Earlier, with the code: the filter protects
# the bias, but D does not have it, so it shrinks from round to round.

# %%
followed = says.chains(table)
expected_chain = says.in_the_toy(followed, study.size)
here.draw("14_rounds", pd.concat([followed, expected_chain]), runs, task=task)

# %%
means = followed.groupby(["source", "acceptance", "round"], sort=False)["bias"].mean()
means.unstack("round").round(2)

# %%
claims = says.reinforcement(followed)
begun = one_step[(one_step["round"] == 0)].groupby("init", sort=False)["bias"].mean()
if here.profile != "smoke":
    assert begun[e5.BIASED] > begun[e5.WHOLE] + 0.5  # the ruler sees the gain that was put in
claims.round(2)

# %%
level, last = means["D alone", "none"].iloc[0], means.index.get_level_values("round").max()
size = begun[e5.BIASED] - level
left = {
    key: (means[key].loc[last] - level) / size
    for key in (("model", "kl"), ("simulator", "kl"), ("simulator", "random"))
}
ends = expected_chain.loc[expected_chain["round"] == last, "bias"]
toy_left = (ends.mean() - level) / size
Markdown(
    f"**Result.** T̂_init's bias is {begun[e5.BIASED]:.2f}, that of D alone {level:.2f}. After "
    f"{last} rounds there is left of the difference: "
    + ", ".join(f"{share:.0%} ({s}, {how})" for (s, how), share in left.items())
    + f". In the linear world T̂'s own transitions leave {toy_left:.0%} at the volumes that passed."
)

# %%
lines = e5_expected.of_rounds(followed)
Markdown("**As expected?**\n\n" + "\n".join(f"- {line}" for line in lines))

# %%
verdicts = {
    "a biased T̂_init reinforces itself": claims[claims["claim"] == "grows"],
    "its bias is still there after the rounds": claims[claims["claim"] == "stays"],
    "the filter protects the bias": claims[claims["claim"] == "filter"],
    "a better T̂_init makes a better T̂": quality,
    "D_diff helps": helped[helped["real"] == "D"],
}
said = pd.DataFrame([
    {"claim": claim, "verdict": counted(found), "positive": int((found["mean"] > 0).sum()),
     "comparisons": len(found), "mean": found["mean"].mean()}
    for claim, found in verdicts.items()
])  # fmt: skip
here.table(said, "14_verdicts", runs, task=task)
said.round(2)

# %%
if len(here.budget.seeds) < 5:
    assert all((found["verdict"] == "inconclusive").all() for found in verdicts.values())
on_d = (helped["real"] == "D") & (helped["acceptance"] == "kl")
best = helped[on_d].groupby(["init", "source"], sort=False)["mean"].mean()
(init, source), most = best.idxmax(), best.max()
filtered = gained[(gained["real"] == "D") & (gained["acceptance"] == "kl")].set_index(
    ["init", "source"]
)
by_seed = filtered.loc[[(init, source)]].groupby("seed")["gain"].mean()
itself = best.xs("model", level="source")
useful = ", ".join(itself.index[itself > 0]) or "none of them"
Markdown(
    f"**How good must T̂_init be?** Of filtered transitions the largest mean gain over D alone is "
    f"{most:+.2f} (log2), with the {init} T̂_init and transitions from the {source}; by seed "
    f"{', '.join(f'{gain:+.2f}' for gain in by_seed)}. The largest of several means looks better "
    f"than it is. T̂_init whose own transitions gain: {useful}."
)  # fmt: skip

# %% [markdown]
# ## What fails
#
# - **The held-out episodes know.** Best weights and elites are chosen on real held-out steps, which
#   contradict the bias too: a T̂ with no held-out data would keep more of it.
# - **D is right here.** A robot whose log has the wrong gain has it in D as well; then only the toy
#   says what happens, and it says that the filter stands in the way.
# - **One bias.** A gain acts everywhere. A bias that lives in a corner of the state space can hide
#   under the median, since most trajectories never meet it.
#
# **To try.** `LinearWorld(epsilon=0.01, median=False)` and a ratio of 20: how many rounds until the
# bias has halved? On the robot, after `from dataclasses import replace`:
# `e5.measure(0, here.profile, replace(grid, gain=0.5)).value`.
