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
# # 00 · Start here
#
# **Question.** What is UEPO, what will these notebooks show, and does this machine give the same
# numbers twice?
#
# UEPO (*Towards Unified Expressive Policy Optimization for Robust Robot Learning*,
# [arXiv 2511.10087](https://arxiv.org/abs/2511.10087)) is an offline-to-online method: it learns a
# policy from logged data and then improves it by acting. It trains **one** diffusion model of whole
# action sequences and draws **many** policies from it, one for each initial noise, kept apart by a
# divergence that compares how their actions move. The policies' imagined trajectories enlarge the
# data for a dynamics model, the best policy is chosen offline, and that one goes online.
#
# | | |
# |---|---|
# | **Paper** | the whole of Algorithm 1, from a distance |
# | **Run time** | a few seconds at every profile |
# | **Inputs** | none |
# | **Outputs** | `figures/overview.png`, `tables/overview.csv` |

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop

# %%
import platform
import re

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from uepo_lib import facts, notebook, profiles
from uepo_lib.figures.overview import overview_table
from uepo_lib.locomotion import HOPPER

# %%
here = notebook.start(
    "00_start_here", profile, outputs=["figures/overview.png", "tables/overview.csv"]
)

# %% [markdown]
# ## The method at a glance
#
# Read it from left to right; the number above a box is the notebook that opens it. What acts is
# blue, what predicts is green, data is grey, and the rule that keeps policies apart is orange.

# %%
here.draw("overview", overview_table(), task="the method", seeds=[])

# %% [markdown]
# Everything in the grey area uses logged data only. The paper names three contributions, and each
# has its notebook: many policies from one model (03), the divergence that keeps them apart (04),
# and synthetic trajectories for the dynamics model (05). The dashed arrow is the last line of
# Algorithm 1: what the online phase sees goes back into the dynamics model.
#
# | sign | means | opened in |
# |---|---|---|
# | $D$, $D_\mathrm{diff}$ | the logged data; the synthetic transitions that enlarge it | 01, 05 |
# | $T$, $T_a$, $T_o$ | actions planned, executed; states seen. By default 8, 4 and 1 | 02 |
# | $\hat x_0$, the chain | the estimated clean plan; the reverse steps to it from noise | 02 |
# | $\varepsilon_i$, κ | the initial noise of sub-policy $i$; its scale, a temperature | 03 |
# | div, τ, η | how differently two plans move; the div that is asked for; the largest push | 04 |
# | α | weight of the paper's KL-style term | 04 |
# | T̂_init, T̂ | dynamics model of $D$; of $D \cup D_\mathrm{diff}$ | 05 |
# | ε | bound of the filter that $D_\mathrm{diff}$ has to pass, in nats | 05 |
# | AM-Q, $\pi^*$ | Uni-O4's score (UEPO builds on it): mean Q on rollouts in T̂; its choice | 06 |
#
# Where a page needs one of these letters for something else, it says so. Where a figure has thin
# lines and bold ones of a colour, a thin line is one seed and the bold one the mean of seeds.
#
# ## The notebooks
#
# Each asks one question; the second line says what you will see.
#
# - [01_data](01_data.ipynb): *What is in the data that everything learns from?*
#   Returns, coverage, action noise; the simulator repeats the log.
# - [02_diffusion_policy](02_diffusion_policy.ipynb): *How does a model of action sequences act?*
#   Noise turning into a plan, on a toy and on the robot.
# - [03_subpolicies](03_subpolicies.ipynb): *How does one model become many policies?*
#   The same state, one plan for each noise.
# - [04_divergence](04_divergence.ipynb): *When do two plans differ?*
#   What the metric sees, and what it mistakes for difference.
# - [05_augmentation](05_augmentation.ipynb): *Does imagined data help a dynamics model?*
#   What the KL filter keeps, and the error on real steps.
# - [06_offline_improvement](06_offline_improvement.ipynb): *Which policy is best, untried?*
#   Predicted scores beside true returns.
# - [07_online_finetuning](07_online_finetuning.ipynb): *What does interaction add?*
#   Learning curves of UEPO and of behaviour cloning.
#
# The experiments, each with its expectation written before its result:
#
# - [10_multi_seed_ablation](10_multi_seed_ablation.ipynb): *Are n noise seeds n policies?*
#   Returns, routes and distances of n seeds, beside n draws and n models.
# - [11_epsilon_sensitivity](11_epsilon_sensitivity.ipynb): *Which ε, which ratio?*
#   The error of T̂, what the filter throws away, what AM-Q makes of it.
# - [12_offline_to_online](12_offline_to_online.ipynb): *Is UEPO better than Uni-O4, and why?*
#   Every contender on the same budget, one component swapped at a time.
# - [13_inference_latency](13_inference_latency.ipynb): *How fast can it decide?*
#   Milliseconds, and the price of being late.
# - [14_initial_model](14_initial_model.ipynb): *How good must the first T̂ be?*
#   Few data, a wrong motor gain, and whether a bias feeds itself.
# - [15_pixels](15_pixels.ipynb): *Does the divergence carry over to camera frames?*
#   A latent's distances beside the true ones; a camera that moves.
# - [16_tradeoffs](16_tradeoffs.ipynb): *How should the dials be set, and how much data is needed?*
#   All dials on one page.
# - [17_failure_signatures](17_failure_signatures.ipynb): *How does one notice a failure?*
#   Four failures provoked, and a number that fires at each.
#
# And two pages to keep: [20_claims](20_claims.ipynb), *every claim of the paper beside what was
# measured*, and [30_your_task](30_your_task.ipynb), *the method on an environment of your own*.
#
# In a hurry: 02, 03, 07, 20. Each notebook opens on its own: what it needs is loaded if it was
# computed before, and computed otherwise: a printed line names each run that is computed, and one
# line a cell says how many were loaded.
#
# ## What the paper leaves open
#
# The pages name a choice by its letter and number. Each is a parameter; the default stands first.
#
# | | left open | here | shown in |
# |---|---|---|---|
# | A1 | $s_{1:T}$ while acting | the last $T_o$ states; all of them, to score a log | 02 |
# | A2 | a sub-policy | one fixed noise, at temperature $\kappa$; or fresh noise | 02, 03, 10 |
# | A3 | what guidance moves | $\hat x_0$, at every reverse step but the last | 03, 04, 10 |
# | A4 | details of div, and τ | means of valid terms; τ from unguided sets | 04, 15, 16 |
# | A5 | likelihood, the KL-style term | a bound on it; the term is off, α = 0 | 02, 04 |
# | A6 | the filter, and the unit of ε | nats a dimension over held-out real data | 05, 11, 14 |
# | A7 | real dynamics, offline | T̂'s transitions; or the simulator's, counted | 05, 11, 14 |
# | A8 | synthetic steps a real one | 2; less at `smoke`, E9, one row of 12 | 05, 11, 12, 14, 16 |
# | A9 | AM-Q, where imagined robots die | steps after death count 0; or as published | 06, 12 |
# | A10 | what is tuned online | the chain, its noise kept; or the noise alone | 07, 12 |
# | A11 | what $\eta$ follows | the reverse steps, down to 0; or nothing | 04 |
# | A12 | whose scores compare | all methods here; the paper's with a note | 01 |
# | A13 | improvement offline | none, as printed; or PPO that AM-Q accepts | 06, 12 |
# | A14 | T̂ online | a diagnostic, and a gate; or short value targets | 07 |
#
# And the experiments by theirs:
#
# | | asks | shown in |
# |---|---|---|
# | E1 | are n noise seeds n policies? | 10 |
# | E2 | does ε matter, and the ratio? | 05, 11 |
# | E3 | is UEPO better than Uni-O4 and cloning, and by which part? | 12 |
# | E4 | how fast can it decide, and what does being late cost? | 13 |
# | E5 | how good must T̂_init be? | 14 |
# | E6 | does the divergence carry over to frames? | 15 |
# | E7 | how do n, ratio, τ and η trade off? | 16 |
# | E8 | which number fires at which failure? | 17 |
# | E9 | how much data is needed? | 16 |
#
# ## How much is computed: profiles
#
# One word sets every size, through the parameter `profile` above or the variable `UEPO_PROFILE`.
#
# | profile | what it is for | how long, all notebooks, with nothing beside them |
# |---|---|---|
# | `smoke` | every line of code runs; its numbers mean nothing | minutes, two cores |
# | `laptop` | the default; what these pages show | 3¼ hours on two slow cores, some two on faster |
# | `full` | more data, more updates, five seeds | some 90 core-hours, estimated |
# | `paper` | the published sizes | thousands of core-hours, estimated; never run here |
#
# The sizes are equal for all methods. Those of `laptop` were cut once more after settings had been
# tuned and results seen, for time alone. The last column holds what was published; where the UEPO
# paper does not say, the size of Uni-O4, on which it builds.

# %%
profiles.table()

# %% [markdown]
# With three seeds each is drawn, and no verdict over them goes past *inconclusive*: so few can
# decide nothing. (13 judges times, which need no seeds; 17 has ten of its own, of which five set
# thresholds and five judge.)
#
# ## Does the environment work?
#
# The versions that numbers depend on, beside those that the project pins. Another version may work;
# its numbers may differ in their last digits, and so in everything that follows from them.

# %%
home = facts.repository()
lock = (home / "requirements.lock").read_text() if home else ""
pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", lock, re.MULTILINE))
versions = pd.DataFrame({"installed": facts.versions()})
versions["pinned"] = [pinned.get(name, "") for name in versions.index]
bare = versions.installed.str.partition("+")[0]  # "+cpu" names a build, not a version
others = versions.index[bare != versions.pinned].tolist()
print(f"Python {platform.python_version()}")
print(f"other than pinned: {', '.join(others) or 'none'}")
versions

# %% [markdown]
# Now the simulator. **Expectation:** two copies of the robot, reset with the same seed and given
# the same actions, agree to the last bit; so does a copy that is put into the full simulator state
# of the other in the middle. All that is said about repeatability later rests on this cell.

# %%
robot = HOPPER
actions = np.random.default_rng(0).uniform(-1, 1, (10, robot.action_dim)).astype(np.float32)


def play(env, steps) -> np.ndarray:
    return np.stack([env.step(action)[0] for action in steps])


first, second, third = (robot.make() for _ in range(3))
resets = [env.reset(seed=7)[0] for env in (first, second)]
begun = play(first, actions[:5])
third.reset(seed=1)
robot.restore(third, robot.simulator_state(first))
ended = play(first, actions[5:])

# %%
assert np.array_equal(*resets), "the same seed, another initial state"
assert np.array_equal(np.concatenate([begun, ended]), play(second, actions)), "another trajectory"
assert np.array_equal(ended, play(third, actions[5:])), "restoring the simulator lost something"
print(f"{robot.env_id}: {len(actions)} steps, three copies, bit-identical")

# %% [markdown]
# The same for PyTorch: noise comes from a generator that is passed in, never from a global seed.
# The sub-policies of notebook 03 are nothing but such noise, so they rest on this one.

# %% tags=["nbval-check-output"]
draws = [torch.randn(3, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
assert torch.equal(*draws)
[round(x, 3) for x in draws[0].tolist()]

# %% [markdown]
# ## Where things lie
#
# ```
# data/<profile>/                   Minari datasets, collected here from the committed policies
# results/local/<profile>/          yours, ignored by git
#     runs/<kind>-<hash>/           one folder a run: config.json, run.json, metrics.csv, weights
#     figures/   tables/            what the notebooks write, each with its .provenance.json
#     notebooks/                    the executed notebooks
# results/reference/                committed evidence; only `make publish` writes it
# ```
#
# A run's name is a hash of its configuration, its data, the runs it builds on and the revision of
# the code that made it: change one and it is another run. A finished run is never computed twice;
# an interrupted one continues from its checkpoint. From a figure one finds its table, its runs, and
# the commit that made them. `python -m uepo_lib runs verify` checks that all of it holds together.

# %%
computed = here.store.computed()
Markdown(
    f"This store, profile `{here.profile}`, holds **{len(here.store.finished())}** finished runs; "
    f"{len(computed)} were computed here, in {sum(row['wall_s'] for row in computed) / 60:.1f} "
    "minutes of work. The counts differ where a run was computed again, was removed later, or was "
    "copied from elsewhere. The minutes are those of the runs added up, taken while other runs and "
    "other work shared the machine; on an idle one they are fewer, and its cores share them."
)

# %% [markdown]
# ## Where to go
#
# [01_data](01_data.ipynb) comes next. To compute everything at once: `make reproduce`. To change a
# setting: `python -m uepo_lib run uepo --set diffusion.num_updates=2000`, or in a cell
# `from uepo_lib.stages import Study` and
# `Study("hopper-medium", seed=0, overrides={"diffusion": {"num_updates": 2000}})`. The algorithm
# itself is one page: `uepo_lib/methods/uepo.py`.
