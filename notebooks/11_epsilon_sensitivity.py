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
# # 11 · Sensitivity to ε: what the filter keeps, refuses, and changes (E2)
#
# T̂_init is the dynamics model fitted to the logged data D, an ensemble whose best members are its
# *elites*; T̂ the one fitted to D and D_diff, which holds trajectories of the diffusion policy in
# T̂_init or in the simulator ([05](05_augmentation.ipynb)).
#
# **Concept.** A filter is a bet that what it refuses would have done harm. It can only look at the
# model that it has, so it calls a transition bad when *the model* is surprised. But a surprise has
# two causes: the transition is wrong, or the model is.
#
# **Question.** Which of the two does KL(real dynamics ‖ T̂_init) < ε throw away, and does it matter
# for T̂'s error or for the policy that T̂ selects?
#
# <details><summary>Answer</summary>
#
# If the next states come from the real dynamics, they are right by construction. Then the KL is a
# rescaled squared error *of the model*, and the filter refuses first those transitions from which
# there may be most to learn. If they come from T̂_init itself, they can be wrong; but the filter
# sees only how far the elites disagree, and what it keeps is mostly what they agree on already. In
# neither case can a threshold create information. What is left is a question of size, and of noise.
#
# </details>
#
# **Paper.** ε = 0.05; |D_diff| two to three times |D|; the sensitivity to ε is open question 2. No
# ablation of either is given.
#
# **Our choices.** A6 (KL and its unit: *excess* over the median of held-out real sequences), A7
# (sources of transitions), A8 (ratio). Notebook [05](05_augmentation.ipynb) builds the filter and
# sweeps ε; here come the ratio, what is thrown away, AM-Q's choice, and the verdicts.
#
# **Run time.** About half a minute at `smoke`, about a minute at `laptop` beyond shared runs; those
# of this notebook take ten to fifteen core-minutes at `laptop`, those of 05 about as many.
#
# **Inputs.** E2's models and pools on a slice of Hopper-medium; Hopper-expert as the test out of
# distribution; true returns of sub-policies, as played for 03 and 06.
#
# **Outputs.** Four figures and their tables, all named `11_*`, and a table of verdicts.

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop

# %%
import pandas as pd
import torch
from IPython.display import Markdown

from uepo_lib import notebook
from uepo_lib.augmentation import gaussian_kl
from uepo_lib.experiments import discarded, ratios
from uepo_lib.experiments import epsilon as e2
from uepo_lib.experiments import epsilon_verdict as effects
from uepo_lib.experiments import model_selection as choices
from uepo_lib.experiments import sensitivity_verdict as verdicts
from uepo_lib.filter_bias import LinearWorld
from uepo_lib.stages import Study

# %%
drawn = ["ratio", "discarded", "novelty", "selection"]
outputs = [path for d in drawn for path in (f"figures/11_{d}.png", f"tables/11_{d}.csv")]
here = notebook.start("11_epsilon_sensitivity", profile, [*outputs, "tables/11_verdicts.csv"])
grid, several = e2.grid_of(here.profile), ratios.grid_of(here.profile)
task = "hopper-medium, slice"

# %% [markdown]
# ## The unit first: what a refused step looks like
#
# A real step that T̂_init misses by $z$ of its standard deviations costs $\tfrac12 z^2$. So ε is a
# bound on a *mean square surprise*; at excess ε the rms surprise is $\sqrt{m + 2\varepsilon}$, with
# $m$ the reference's own mean square. Around a reference of one σ̂ the paper's ε is a small step:

# %% tags=["nbval-check-output"]
one = torch.ones(5, dtype=torch.float64)
z = torch.tensor([0.0, 1.0, 1.048809, 2.0, 3.0], dtype=torch.float64)
cost = gaussian_kl(z, one, 0 * one, one)
for surprise, nats in zip(z, cost, strict=True):
    print(f"missed by {surprise:.2f} σ̂: {nats:.3f} nats, excess over 1 σ̂: {nats - 0.5:+.3f}")
assert torch.allclose(cost, z.square() / 2)
assert abs(float((1 + 2 * ratios.EPSILON) ** 0.5) - float(z[2])) < 1e-6

# %% [markdown]
# ε = 0.05 lies five per cent above one σ̂. Where a model is *wrong* by more than its σ̂ says, it is
# refused more than elsewhere.
#
# In a linear world this has a closed form (derived in [14](14_initial_model.ipynb)): T̂_init has a
# wrong gain, the filter judges real steps, and a fit to the kept ones would leave a share of the
# error standing. Without a filter it is 0.

# %% tags=["nbval-check-output"]
shares = []
for tolerance in (*e2.grid_of("laptop").epsilons, 1e6):
    world = LinearWorld(epsilon=tolerance)
    shares.append(world.remaining(1.0))
    name = f"ε = {tolerance:g}" if tolerance < 1e6 else "no filter"
    kept = world.kept(1.0)
    print(f"{name + ':':11s} keeps {kept:.2f} of real steps, leaves {shares[-1]:.3f} of the error")
assert shares == sorted(shares, reverse=True) and shares[-1] < 1e-9

# %% [markdown]
# ## How many? The ratio
#
# A slice of D, every |D_diff| / |D| at ε = 0.05, equally many gradient steps for all.
#
# **Expectation.** From T̂_init more is never better: every row takes the place of a real one. From
# the simulator more helps, and helps most where nothing was filtered.
#
# Thin lines, here and in the next two figures, are one seed each, the bold line of that colour is
# their mean; in the last figure dots are seeds, bars their means. In this one only the filter's
# seeds are drawn; every bold line is a mean over all seeds, and where a seed is left out (below)
# the mean of the others stands alone, as an open marker. A row has one scale; inside the grey band
# an effect is less than a tenth of the error.

# %%
by_ratio, ratio_runs = ratios.run(here.profile)
gained = effects.gains(by_ratio)
full = verdicts.reached(gained)
here.draw("11_ratio", full, ratio_runs, task=task)

# %%
sweeps = {"ratio sweep": several, "ε sweep": grid}
sizes = pd.DataFrame({name: e2.sizes(here.profile, one) for name, one in sweeps.items()})
one_step = by_ratio[by_ratio["step"] == 1].drop_duplicates(
    ["source", "ratio", "epsilon", "acceptance", "seed"]
)
filled = one_step[one_step["wanted"] > 0].assign(filled=lambda t: t["volume"] / t["wanted"])
at_epsilon = filled[filled["epsilon"].notna()]
equal = at_epsilon.pivot_table(
    index=["source", "ratio", "seed"], columns="acceptance", values="volume"
)
assert (equal["kl"] == equal["random"]).all()  # the control has the filter's volume
sizes

# %%
Markdown(
    f"At `{here.profile}` the ratio sweep learns from **{several.size:,} transitions**, the ε "
    f"sweep from {grid.size:,}: each has a T̂_init of its own, and gains are not compared across."
)

# %%
at_epsilon.pivot_table(index="source", columns="ratio", values="filled").round(2)

# %% [markdown]
# The table, a mean over seeds, says how much of the wanted volume the filter could fill from its
# pool. A seed that fills less than nine tenths of a cell does not have the ratio that it is named
# by: it is left out of figure and verdict, and a test that has no seed left is "not reached". What
# is left out is named below the verdicts. This rule, and the cells without a filter, were added
# when one seed's largest ratios, from the pool of that time, had been seen to be far from filled;
# the other thresholds stood before. The ε sweep is held to it too, which was added last.

# %%
large = verdicts.large_ratio(full)
large.round(2)

# %%
over_none = large[large["against"] == "T̂_init"]
more = large[large["against"] == "ratios up to 1"].groupby(["source", "filter"], sort=False)
Markdown(
    f"**Does a ratio of 2 to 3 help? {verdicts.counted(over_none)}.** Mean gain over all tests at "
    "those ratios of 2 to 3 that the filter could fill (log2 of T̂_init's error over T̂'s): "
    f"{verdicts.large_told(large)}. Expected of more, those ratios against ratios up to 1: no gain "
    "from T̂_init's own transitions, a gain from the simulator's, most where unfiltered. Seen: "
    + ", ".join(f"{source}, {'no filter' if kept == 'none' else kept} {gain:+.2f}"
                for (source, kept), gain in more["mean"].mean().items()) + "."
)  # fmt: skip

# %% [markdown]
# ## What is thrown away
#
# One pool a source, every trajectory described by numbers the filter does not see, and for each ε
# the chance that a *rejected* one has the larger number (the AUC): ½ if the filter does not care.
#
# **Expectation.** Rejected ones are further from D, the elites disagree there, and T̂_init errs
# there. Length, reward and speed: a hop that is faster than D's is refused more often.

# %%
described, described_runs = discarded.run(here.profile)
compared = discarded.compare(described, grid.epsilons)
here.draw("11_discarded", compared, described_runs, task=task)

# %%
at_paper = compared[compared["epsilon"] == ratios.EPSILON]
at_paper.groupby(["source", "quantity"])[["accepted", "rejected", "separation"]].mean().round(3)

# %%
Markdown(discarded.expected(compared))

# %% [markdown]
# Distances are Euclidean in standardised states, speed is in m/s, errors are mean squares. The
# error of trajectories in T̂_init is not known: no one has stepped the real dynamics there.
#
# ## Would it have taught the model something?
#
# Simulator transitions are true. Left: the filter's value against T̂_init's real error. Right: what
# T̂ has learnt, by fifths of the filter's value; once with D_diff filtered at ε = 0.05, once with as
# many drawn at random. Both are shown on the trajectories of the pool that **neither** T̂ was fitted
# to. The filtered one learnt from trajectories below ε alone, so of what is left a larger share
# lies above it than of the pool.

# %%
new = discarded.learnt(described)
here.draw("11_novelty", new, described_runs, task=task)

# %%
pool = described[described["source"] == "simulator"]
above = {name: (one["excess"] >= ratios.EPSILON).mean()
         for name, one in (("pool", pool), ("unseen", new))}  # fmt: skip
Markdown(
    f"Unseen are {len(new):,} of {len(pool):,} simulator trajectories of all seeds. Above ε lie "
    f"{above['unseen']:.0%} of them, and {above['pool']:.0%} of the pool."
)

# %%
ranked = discarded.ranks(described)
ranked.round(2)

# %%
half = new.assign(refused=new["excess"] >= ratios.EPSILON)
by_half = half.groupby("refused")[["random", "filtered"]].mean()
here_lost = (
    by_half.loc[True, "random"] - by_half.loc[True, "filtered"] if True in by_half.index else 0
)
error_ratio = at_paper[(at_paper["source"] == "simulator") & (at_paper["quantity"] == "error")]
times = (error_ratio["rejected"] / error_ratio["accepted"]).mean()
if here.profile != "smoke":
    assert (ranked["error"] > 0).all()  # what it refuses is where T̂_init is wrong
Markdown(
    f"**Result.** T̂_init errs {times:.1f} times as much on the trajectories that ε = "
    f"{ratios.EPSILON:g} refuses (Spearman of the filter's value and the true error: "
    f"{ranked['error'].mean():.2f}). On unseen trajectories above ε, T̂ with a random D_diff gains "
    f"{by_half['random'].get(True, float('nan')):+.2f} over T̂_init, with the filtered one "
    f"{by_half['filtered'].get(True, float('nan')):+.2f}: the filter costs {here_lost:.2f} there. "
    f"The value ranks what a random D_diff teaches with ρ = {ranked['random'].mean():.2f}."
)

# %% [markdown]
# ## Does T̂ select a better policy?
#
# T̂ reaches the policy only through AM-Q. Sub-policies at κ = 0, ¼, ½ and 1 have played real
# episodes; each dynamics model of the sweep ranks them from the same starts with the same critic.
# Regret is the best true score minus that of the model's choice; the best is found on one half of
# the episodes and scored on the other, both ways, as in [06](06_offline_improvement.ipynb). A
# candidate drawn at random needs no model: its regret is what choosing has to undercut (dashed in
# the figure).
#
# **Expectation.** One-step errors that differ by a tenth do not reorder policies that differ by
# tens of points: nearly all models choose alike.

# %%
judged, judged_runs = choices.run(here.profile)
regrets = choices.regrets(judged)
here.draw("11_selection", regrets, judged_runs, task=task)

# %% [markdown]
# "No filter" and a random control of full volume are equal treatments, so the difference between
# them is what chance does. A control that two ε share, since both fill the wanted volume, is one
# model: it is drawn and counted once, at the larger ε.

# %%
better = verdicts.selects_better(regrets)
asked = choices.amq_of(here.profile)
count = len(judged.drop_duplicates(["member", "kappa"]))
better.round({"mean": 1, "low": 1, "high": 1})

# %%
worth = choices.against_chance(regrets)
worth.round(2)

# %%
whole = Study(e2.TASK, here.budget.seeds[0], here.profile, progress=False).held_out[0]
Markdown(
    f"**The augmented T̂ selects better: {verdicts.counted(better)}.** {count} candidates, "
    f"{asked.num_starts} starts, {asked.horizon} steps. {choices.chance_told(worth)} UEPO's own T̂ "
    f"is the row with T̂_init's transitions and ε = {ratios.EPSILON:g}. Models learn from "
    f"{grid.size:,} transitions here, and from {len(whole):,} in "
    "[06](06_offline_improvement.ipynb) and [12](12_offline_to_online.ipynb), where AM-Q asks "
    f"{here.budget.amq_starts} starts: those pages say what its choice is worth there."
)

# %%
Markdown(choices.alike(regrets))

# %% [markdown]
# ## Verdicts
#
# Rules fixed before the numbers: an effect on the error must exceed a tenth of it with an interval
# above zero, one on selection two points; "not supported" needs the whole interval below that; and
# nothing is concluded from fewer than five seeds.

# %%
table, e2_runs = e2.run(here.profile)
by_epsilon = effects.gains(table[table["ratio"] <= 1])
swept = verdicts.reached(by_epsilon)
claims = {
    "there is a sweet spot in ε": verdicts.sweet_spot(swept),
    "a ratio of 2 to 3 helps": large[large["against"] == "T̂_init"],
    "the filter beats random acceptance": pd.concat(
        [verdicts.filter_over_chance(swept), verdicts.filter_over_chance(full)]
    ),
    "the augmented T̂ selects better": better,
}
said = pd.DataFrame([
    {"claim": claim, "verdict": verdicts.counted(found), "positive": (found["mean"] > 0).sum(),
     "comparisons": len(found), "mean": found["mean"].mean()}
    for claim, found in claims.items()
])  # fmt: skip
here.table(said, "11_verdicts", [*e2_runs, *ratio_runs, *judged_runs], task=task)
said.round(2)

# %%
if len(here.budget.seeds) < 5:
    allowed = {"inconclusive", "not reached"}
    assert all(set(found["verdict"]) <= allowed for found in claims.values())
filters = claims["the filter beats random acceptance"]
by_source = filters.groupby("source")["mean"].mean()
Markdown(
    "Means over all comparisons, whatever the labels: the filter against chance at equal volume "
    + ", ".join(f"{gain:+.2f} ({source})" for source, gain in by_source.items())
    + f"; in {int((filters['mean'] > 0).sum())} of {len(filters)} comparisons it is ahead. Left "
    "out, with less than nine tenths of the wanted volume: of the ε sweep "
    f"{verdicts.left_out(by_epsilon)}; of the ratio sweep {verdicts.left_out(gained)}."
)

# %% [markdown]
# ### In practice

# %%
advised = [
    f"**{name}**, {sizes[name]['real transitions']} transitions:\n\n"
    + verdicts.advised(verdicts.advice(part))
    for name, part in (("ε sweep", swept), ("ratio sweep", full))
]
Markdown("\n\n".join([*advised, "The best of many cells looks better than it is."]))

# %% [markdown]
# ## What fails
#
# - **A slice and a small network.** The ratio sweep has its own T̂_init: compare cells within a
#   figure, not across.
# - **Unseen is not far.** "Unseen" trajectories come from the same policy and starts as D_diff;
#   the expert test is the one that leaves the distribution.
# - **Choosing from little.** What T̂ is worth to AM-Q is measured here on a slice of D and from few
#   starts. Where its choice is no better than a candidate drawn at random, the comparison of T̂ and
#   T̂_init by regret is one of two failures.
# - **One correlation over all κ.** AM-Q's rank correlation is over candidates of every κ together;
#   what it says of seeds within one κ is in [06](06_offline_improvement.ipynb).
#
# **To try.** A wider range, after `from dataclasses import replace`:
# `e2.cells(0, here.profile, replace(grid, epsilons=(0.005, 1.0), controls=()))`. Every new cell is
# one run.
