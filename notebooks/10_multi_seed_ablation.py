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
# # 10 · Multi-seed ablation: are n noise seeds n policies? (E1)
#
# **Question.** One diffusion model and n initial noises $\varepsilon_i$ are to give n different
# policies. Do they differ by more than chance? Is the best of them worth choosing? Does a seed keep
# to one behaviour, and do n seeds reach more of the behaviours in D than n draws would?
#
# **Paper.** Section 1, contribution 1: n sub-policies from one model; contribution 2: guidance by
# velocities and accelerations makes them diverse. No ablation of n is given there.
#
# **Our choices.** A2: sub-policy $i$ is the model with its noise $\varepsilon_i$ and temperature
# $\kappa$, a function of the state. The *null* is fresh noise: n policies, each with a generator of
# its own, which are equal in distribution; whatever they show is chance. A3: guided sets play as
# sets, at the strongest $\eta$ of notebook 04 (UEPO's own is gentler), beside ungated noise of
# equal power.
#
# **Run time** beyond shared models: about half a minute at `smoke`, about ten minutes on two cores
# at `laptop`.
#
# **Inputs.** Hopper-medium-replay (many behaviours) and the maze (four routes, equally often), at
# `full` also Hopper-medium (one behaviour, noisy; at `laptop` 03 shows its seeds) and the same with
# less noise; one diffusion model a task and seed. On the maze, once: n more models, n Gaussian
# clones, each with a share of the updates, and one mixture-density network.
#
# **Outputs.** Seven figures with their tables, and a table of verdicts.

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop

# %%
import pandas as pd
import torch
from IPython.display import Markdown

from uepo_lib import notebook
from uepo_lib.coverage import NO_MODE, coverage, null_coverage, persistence
from uepo_lib.ensembles import best_of_n, between_sd
from uepo_lib.expectations import listed
from uepo_lib.experiments import multi_seed as e1
from uepo_lib.experiments.multi_seed_expected import expected
from uepo_lib.experiments.multi_seed_verdict import POINTS, claims
from uepo_lib.experiments.seed_sets import FRESH, GAUSSIANS, GUIDED, NETWORKS, ZERO, fixed, grid_of
from uepo_lib.figures import multi_seed as drawn
from uepo_lib.figures import multi_seed_routes as in_maze
from uepo_lib.guided_sets import SHIPPED, STRONG
from uepo_lib.stages import Study
from uepo_lib.statistics import with_intervals

# %%
names = ("members", "beyond_chance", "routes", "coverage", "paths", "distances", "film")
outputs = [p for n in names for p in (f"figures/10_{n}.png", f"tables/10_{n}.csv")]
here = notebook.start("10_multi_seed_ablation", profile, [*outputs, "tables/10_claims.csv"])
grid = grid_of(here.profile)
studies = [
    Study(task, seed, here.profile, progress=False)
    for task in grid.tasks
    for seed in here.budget.seeds
]
found = e1.run(here.profile, grid)
(returns, played), (distances, compared) = found["returns"], found["distances"]
seeds = fixed(1.0)

# %% [markdown]
# ## What chance alone shows
#
# n equal policies look different: each plays only so many episodes. Two of the measures below are
# built to see through that. *The sd of the members' true means* takes from the spread of their
# means what chance explains; all members begin an episode alike, so what a reset is worth to all
# of them is no chance between them. *The best of n* is chosen on one half of the episodes and
# judged on the other. On ten equal policies both must find next to nothing: a variance that is cut
# at 0 stays positive on average.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
equal = torch.randn(200, 10, 20, generator=generator)  # 200 sets of 10 equal policies, 20 episodes
differing = equal + torch.linspace(-1, 1, 10)[:, None]
resets = differing + 10 * torch.randn(200, 1, 20, generator=generator)  # the same for all members
kinds = {"equal": equal, "differing by up to ±1": differing, "the same, with resets": resets}
rows = {}
for name, sets in kinds.items():
    best = [best_of_n(one, generator, 20) for one in sets[:50]]
    rows[name] = {
        "spread of means": float(sets.mean(2).std(1).mean()),
        "sd of true means": sum(between_sd(one) for one in sets) / len(sets),
        "best, same half": sum(b.chosen for b in best) / len(best),
        "best, other half": sum(b.fresh for b in best) / len(best),
    }
null = pd.DataFrame(rows).T.round(1)
null

# %%
assert null.loc["equal", "best, same half"] > 0.3  # what a naive "best of ten" would report
assert abs(null.loc["equal", "best, other half"]) <= 0.1
assert null.loc["equal", "sd of true means"] < null.loc["equal", "spread of means"]
true_sd = float(torch.linspace(-1, 1, 10).std())
for name in ("differing by up to ±1", "the same, with resets"):
    assert abs(null.loc[name, "sd of true means"] - true_sd) < 0.1

# %% [markdown]
# And n draws from four equally likely routes reach $4 (1 - 0.75^n)$ of them on average; a member
# that draws anew repeats its route in a quarter of all pairs of episodes in which it arrives,
# however often it does.

# %% tags=["nbval-check-output"]
draws = torch.randint(4, (10, 4_000), generator=torch.Generator().manual_seed(0))
kept_to = draws[:, :1].expand(-1, 4_000)  # each member keeps to its first
seldom = torch.arange(4_000) % 4 > 0  # three of four episodes do not arrive
{
    "reached by 10 draws": (round(coverage(draws), 2), round(null_coverage(10), 2)),
    "repeated by draws": round(persistence(draws), 2),
    "by draws that seldom arrive": round(persistence(draws.masked_fill(seldom, NO_MODE)), 2),
    "repeated by a member with a mode": persistence(kept_to),
    "by one that seldom arrives": persistence(kept_to.masked_fill(seldom, NO_MODE)),
}

# %% [markdown]
# ## Returns
#
# **Expectation**, written before the runs: on data with one mode a fixed seed is a constant bias of
# the actions ($\mu(s) + c\,\kappa\,\sigma(s)\,\varepsilon_i$), so seeds differ in return beyond
# chance, and most are worse than zero noise; smaller $\kappa$ draws them together.
#
# ($\mu$ and $\sigma$ are the actions' mean and spread in $s$; $c < 1$ is what few reverse steps
# leave of the spread, [02](02_diffusion_policy.ipynb). At `laptop` this page has no data of one
# mode: [03](03_subpolicies.ipynb) shows such seeds.)

# %%
members = pd.concat([e1.members_table(study, grid) for study in studies], ignore_index=True)
here.draw("10_members", members, played, task=", ".join(grid.tasks))

# %% [markdown]
# **What to see.** In a column of *fresh noise* members differ by chance alone; fixed seeds differ
# by more only where they lie wider apart. A bar below that of κ = 0 is a set that is worse on
# average than zero noise. Guided and ungated sets pay n plans for one and play fewer episodes, so
# their members differ by more chance than those of *fresh noise*, which is no reference for them.

# %%
here.draw("10_beyond_chance", returns, played, task=", ".join(grid.tasks))

# %% [markdown]
# **What to see.** Above, what a set has more than *fresh noise* is what chance does not explain.
# Below, choosing the best of n is worth what a line has more than that of *fresh noise*.

# %%
largest = returns[returns["n"] == grid.n]
zero = returns[returns["set"] == ZERO].groupby("task")["mean"].mean()
shown = largest[largest["set"].isin([seeds, FRESH])]
wide = shown.pivot_table(index="task", columns="set", values=["between", "other_half", "mean"])
lines = [
    f"- **{task}**: the sd of the true means of {grid.n} fixed seeds is "
    f"{row['between', seeds]:.1f} points, of {grid.n} equal policies "
    f"{row['between', FRESH]:.1f}; the best seed, chosen by other episodes, scores "
    f"{row['other_half', seeds]:.1f} where the set's mean is {row['mean', seeds]:.1f}; one policy "
    f"of zero noise, without any choice, scores {zero[task]:.1f}."
    for task, row in wide.iterrows()
]
Markdown(f"At $\\kappa = 1$, means over {len(here.budget.seeds)} seeds:\n\n" + "\n".join(lines))

# %% [markdown]
# ## Routes in the maze
#
# **Expectation**: a seed keeps to a route more often than chance, because the same noise at the
# first fork leads the same way; n seeds reach no more routes than n draws. n models with one noise
# reach fewer: the noise decides, not the network.
#
# A route is read from the path that an episode took (`maze.route_past`); an episode that does not
# arrive has none. The first figure shows up to five members of two sets, the first four episodes of
# each; the second counts all episodes, of which guided and ungated sets have fewer: what is dark
# there may be chance.

# %%
maze = Study(grid.rivals, here.budget.seeds[0], here.profile, progress=False)
paths = in_maze.paths_table(maze, grid)
here.draw("10_paths", paths, played, task=grid.rivals, seeds=[maze.seed])

# %%
shares = e1.route_shares(maze, grid)
here.draw("10_routes", shares, played, task=grid.rivals, seeds=[maze.seed])

# %%
routes = returns.dropna(subset=["coverage"])
here.draw("10_coverage", routes, played, task=grid.rivals)

# %% [markdown]
# **What to see.** Left: the grey curve is what draws from four equally likely routes reach; a set
# above it covers more than draws do. Lines are means over seeds, of which the right panel shows
# every one. Right, of pairs of episodes that arrive: 1 is a member that always takes the same
# route, ¼ one that draws anew. How often members arrive stands in the table (`arrived`); a member
# that never does covers nothing on the left and counts for nothing on the right. κ = 0 is one
# policy: it has a row in the table, and none in this figure.

# %%
columns = ["coverage", "entropy", "persistence", "arrived"]
most = routes[(routes["n"] == grid.n) | (routes["set"] == ZERO)]  # κ = 0 is one policy
by_set = most.groupby("set", sort=False)
known = by_set[columns].mean()
known.round(2).assign(n=by_set["n"].max(), seeds=by_set["seed"].nunique())

# %%
repeats = {name: known.loc[name, "persistence"] for name in (FRESH, ZERO, seeds)}
alone = most[most["set"] == ZERO].sort_values("seed")["persistence"]
Markdown(
    f"Of pairs of arrivals, draws repeat a route in {repeats[FRESH]:.2f}, *one* policy of zero "
    f"noise in {repeats[ZERO]:.2f} (by seed {', '.join(f'{p:.2f}' for p in alone)}), fixed seeds "
    f"in {repeats[seeds]:.2f}. Zero noise has no seed to keep to: what it has more than draws, "
    "where it has more, is what planning without dice does. It arrives in "
    f"{known.loc[ZERO, 'arrived']:.0%} of episodes, fixed seeds in "
    f"{known.loc[seeds, 'arrived']:.0%}."
)

# %%
each, all_of_them = grid.rival_share, grid.n * grid.rival_share
Markdown(
    f"n models stand in this table once, with the first seed: whatever they show, one seed decides "
    f"nothing. Each is trained for {each:.0%} of the updates of the one model, all together for "
    f"{all_of_them:.0%}, so that the comparison is also one of training. On that seed:"
)

# %%
most[most["seed"] == maze.seed].set_index("set")[["seed", *columns]].round(2)

# %%
cost = maze.config("diffusion").num_updates
clone = maze.config("clone").num_updates
pd.DataFrame(
    {
        "networks": {seeds: 1, NETWORKS: grid.n, GAUSSIANS: grid.n},
        "updates of all": {
            seeds: cost,
            NETWORKS: round(grid.n * grid.rival_share * cost),
            GAUSSIANS: round(grid.n * grid.rival_share * clone),
        },
    }
)

# %% [markdown]
# ## Distances: does div see what is done?
#
# **Expectation**: guidance moves plans apart more than it moves what is done; div ranks pairs of
# sub-policies by what they do no better than the plain distance of their plans, and on noisy data
# most of div is the floor that repeats of one behaviour have too.
#
# Members plan in the same 256 logged states, and act for some steps from the same logged states of
# the simulator. In the table `div` is that to the nearest plan, `low_passed` the same of smoothed
# plans, `floor` the same of n noisy repeats of one behaviour, as many as there are plans (at first
# it was that of two repeats, which have no choice of a neighbour, and so too large beside div); a
# controller made the maze's data, and what it meant without noise is not known. `plan_rms` and
# `executed_rms` are plain (RMS) distances of plans and of executed trajectories.
# `rho` is the rank correlation of div with `executed_rms` over the pairs of members in a state,
# `rho_rms` that of `plan_rms` with it. The upper row of the figure compares sets, and each task has
# its own scale there; the lower row is the question: `rho` beside `rho_rms`, joined for each seed.

# %%
here.draw("10_distances", distances, compared, task=", ".join(grid.tasks))

# %%
measured = ["div", "low_passed", "floor", "plan_rms", "executed_rms", "rho", "rho_rms"]
apart = distances.groupby(["task", "set"], sort=False)[measured].mean()
apart.insert(3, "floor/div", apart["floor"] / apart["div"])
apart.round(2)

# %% [markdown]
# ## Two seeds on film
#
# The two sub-policies of Hopper at $\kappa = 1$ whose paths in the plane of torso height and
# forward velocity are furthest apart, from the same start. Poses are rebuilt from observations,
# which do not say how far the robot has come: so it stays in place, and the floor does not move.

# %%
hopper = Study(grid.tasks[0], here.budget.seeds[0], here.profile, progress=False)
film = drawn.film_table(hopper, grid)
here.draw("10_film", film, played, task=hopper.task.name, seeds=[hopper.seed])

# %% [markdown]
# ## What was expected, and what came

# %%
Markdown(listed(expected(returns, distances, members)))

# %% [markdown]
# ## Verdicts
#
# Each claim is a difference that the paper's idea makes positive, one number a seed, told with its
# mean over seeds (`gain`) and the interval of that; fewer than five seeds decide nothing. Guided
# sets pay n plans for one and play fewer episodes; their return is compared over those episodes
# alone, so single seeds of it are noisy. Added when a first table had been seen: this rule, the
# claim against n models without noise, the stronger rival in routes, the margin of what guidance
# may cost, and that routes are compared among arrivals.

# %%
said = with_intervals(claims(returns, distances))
here.table(said, "10_claims", [*played, *compared], task=", ".join(grid.tasks))
said.round(2)

# %%
Markdown(
    f"The guided sets here have {STRONG}, and n = {grid.n}; those that make D_diff have {SHIPPED}, "
    f"and n = {here.budget.num_subpolicies}. What is said of guidance is said of the former. It "
    f"*costs no return* if the interval lies above −{POINTS:g} points of normalised score, E2's "
    "margin: less is no difference between two choices of a policy."
)

# %%
assert set(said["task"]) == set(grid.tasks)
assert (distances.loc[distances["set"] == GUIDED, "div"] > 0).all()

# %% [markdown]
# ## What to take from it
#
# - Read the best of n on episodes that did not choose it: the same half flatters it, and ten equal
#   policies have a "best" too.
# - A seed may be no more than a bias of the actions, and a worse policy: compare a set's mean with
#   $\kappa = 0$ before counting its members.
# - Where D has modes, ask of a set whether it reaches them *and* keeps to them; div is built to see
#   neither.
