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
# # 13 · Inference latency: how fast can a diffusion policy decide? (E4)
#
# **Question.** A controller that runs at 100 Hz has ten milliseconds for a decision. How long does
# a denoising chain take, what makes it longer, and what does it cost to be late?
#
# **Paper.** Open question 1: real-time control. No times are given there.
#
# **Our choices.** One state at a time, one thread, untrained networks of the sizes that the other
# notebooks train (weights do not change the time); the code that is timed is `policy.act`, which
# acts everywhere here. A plan of $T$ actions is executed for $T_a$ steps.
#
# **Run time** beyond shared runs: seconds at `smoke`, one to two minutes at `laptop`.
#
# **Inputs.** Hopper's sizes; for the price of delay the zero-noise policy and the Gaussian clone of
# Hopper-medium; for the returns by denoising steps two sets that were played for 04.
#
# **Outputs.** Two figures with their tables, and tables of rates, of returns by denoising steps and
# of verdicts.

# %% tags=["parameters", "alone"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop

# %%
import pandas as pd
import torch
from IPython.display import Markdown

from uepo_lib import notebook
from uepo_lib.delayed import Delayed
from uepo_lib.experiments import latency as e4
from uepo_lib.experiments import latency_verdict as says
from uepo_lib.guided_sets import GuidedRobot
from uepo_lib.stages import Study

# %%
outputs = [
    path for d in ("times", "delay") for path in (f"figures/13_{d}.png", f"tables/13_{d}.csv")
]
outputs += [f"tables/13_{name}.csv" for name in ("rates", "steps", "verdicts")]
here = notebook.start("13_inference_latency", profile, outputs)
studies = [Study(e4.TASK, s, here.profile, progress=False) for s in here.budget.seeds]
grid, period = e4.grid_of(here.profile), e4.control_period(studies[0])

# %% [markdown]
# ## Time to a decision
#
# **Expectation**, written before the runs: time grows linearly with the number of denoising steps
# and far less than linearly with $n$, because $n$ sub-policies are one batch; five steps reach 20
# and 50 Hz, not 500.
#
# The time of the *first* action is that of the whole decision. The percentile matters as much as
# the median: a controller that misses one deadline in a hundred misses one a second at 100 Hz.
# Single cells, or all of them, can be off by what else ran at that moment: read trends over cells,
# and ratios, the one of most steps to one step too, only where they hold over neighbouring cells.
# Both panels have one scale; dotted lines are the periods of control rates.

# %%
timed = e4.measure_times(studies[0], grid)
times = timed.value
here.draw("13_times", times, [timed.run], task="Hopper's sizes", seeds=[])  # nothing learnt

# %%
usual = int(times.loc[times["n"] > 1, "steps"].iloc[0])
main = times[(times["backbone"] == "unet_transformer") & (times["n"] == 1)].set_index("steps")
largest = int(times["n"].max())
many = times[(times["backbone"] == "unet_transformer") & (times["n"] == largest)]["median"].iloc[0]
gaussian = times.loc[times["backbone"] == e4.GAUSSIAN, "median"].iloc[0]
most = int(main.index.max())
Markdown(
    f"The default network decides in **{main.loc[usual, 'median']:.1f} ms** with {usual} steps "
    f"(99th percentile {main.loc[usual, 'p99']:.1f} ms), the Gaussian MLP in {gaussian:.2f} ms. "
    f"{most} steps take {main.loc[most, 'median'] / main.loc[1, 'median']:.0f} times one step; "
    f"{largest} sub-policies take {many / main.loc[usual, 'median']:.1f} times one."
)

# %% [markdown]
# ## Which rates are kept?
#
# "each": at its 99th percentile a decision fits into one control period. "planned": it does not,
# but fits into the $T_a$ periods that a plan lasts, so a controller that plans ahead keeps up,
# with actions that are that old. "no": it fits into neither. Times are of one machine, named in the
# run's record.

# %%
rates = e4.reached(times)
here.table(rates, "13_rates", [timed.run], task="Hopper's sizes", seeds=[])
names = [f"{rate} Hz" for rate in e4.RATES]
rates[rates["n"] == 1].set_index(["backbone", "steps"])[names]

# %% [markdown]
# ## Fewer steps
#
# Fewer steps are faster; do they score lower? [04](04_divergence.ipynb) has played the same noises
# at two numbers of denoising steps, unguided and for one seed, with half of the episodes at the
# larger one. Other numbers were not played; what steps do to the spread of plans is in
# [02](02_diffusion_policy.ipynb). `low` and `high` are the worst and the best sub-policy, `ms` is
# the median time to a decision.

# %%
played = GuidedRobot(studies[0]).by_steps()
robot = studies[0].task.robot
by_steps = says.by_steps(
    {n: [robot.normalised(float(m)) for m in p.value.returns.mean(1)] for n, p in played.items()},
    times,
)
here.table(
    by_steps, "13_steps", [timed.run, *(p.run for p in played.values())], task=e4.TASK,
    seeds=[studies[0].seed],
)  # fmt: skip
by_steps.round(1)

# %%
Markdown(says.fewer_says(by_steps))

# %% [markdown]
# ## What a late decision costs
#
# **Expectation**, written with the first: the delay costs more on a fast walker than its
# milliseconds suggest.
#
# While the policy computes, the robot moves on. So a delay of $d$ control steps means acting on the
# state from $d$ steps ago. A planner has a remedy: its plan, made then, contains the action that
# was meant for *now*, so it can skip those that the delay has overtaken.
#
# Two controls, added after earlier runs in which the remedy had been worse, are never late. One
# skips the first $d$ actions of a plan made from the *present* state; the other executes the first
# $T_a + d$ actions of such a plan, and so goes as far into it as the remedy does. In the figure
# thin lines are seeds and bold ones their means.


# %% tags=["nbval-check-output"]
class Newest:
    """A toy: acts with the newest state that it is shown."""

    n, obs_horizon, action_horizon = 1, 1, 1

    def act(self, states, generator=None):
        return states[:, :, -1:, :1]


history = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 4, 1)  # s_{t-3} .. s_t
for d in range(4):
    late = Delayed(Newest(), d)
    print(f"delay {d}: acts on state", int(late.act(history[:, :, -late.obs_horizon :])))
    assert late.act(history[:, :, -late.obs_horizon :]).item() == 3 - d

# %%
late_runs = [e4.measure_delay(study, grid) for study in studies]
delays = pd.concat([product.value for product in late_runs], ignore_index=True)
here.draw("13_delay", delays, [product.run for product in late_runs], task=e4.TASK)

# %%
injected = e4.injected(times, period, usual)
injected.round(2)

# %%
wide = delays.pivot(index=["seed", "policy"], columns="delay", values="score")
told, d = e4.comes_to(injected, period, wide.columns)
lost = {name: (wide[d] - wide[0]).xs(name, level="policy").tolist() for name in ("clone", "stale")}
Markdown(
    f"{told} A delay of {d} changes the score of the diffusion policy by "
    f"{sum(lost['stale']) / len(lost['stale']):+.1f} points and the clone's by "
    f"{sum(lost['clone']) / len(lost['clone']):+.1f}. {e4.remedy(delays, d)}"
)

# %% [markdown]
# **How a remedy can hurt.** Only the first action of a plan answers the state that the plan was
# made from. The later ones continue *it* and presume that it was executed. The remedy executes in
# its place an action of the plan before, and begins where the new plan takes for granted what never
# happened. A plan would have to be made *given* the actions that are already on their way.

# %% [markdown]
# ## Is it fast enough?
#
# Of the default network, n = 1. A rate is *supported* if a decision fits into its period at the
# 99th percentile, *not supported* if it does not at the median; this is of one machine. To be late
# is *supported* to cost nothing if the whole interval of the loss lies below two points, and *not
# supported* if it lies above. A time below one period counts as a whole one, as delays are played
# in whole steps. The rules were written after a first run had been seen.

# %%
found = says.verdict(times, delays, period, usual)
here.table(found, "13_verdicts", [timed.run, *(p.run for p in late_runs)], task=e4.TASK)
found

# %%
lines = says.expected(times, delays, usual)
Markdown(
    f"**Verdict.** {says.OVERALL.capitalize()}, its own rate kept and nothing lost by being late: "
    f"**{found['verdict'].iloc[-1]}**.\n\n**As expected?**\n\n"
    + "\n".join(f"- {line}" for line in lines)
)

# %%
if len(here.budget.seeds) < 5:
    assert set(found.loc[found["seeds"] > 0, "verdict"]) <= {"inconclusive", "not supported"}
assert set(delays["seed"]) == set(here.budget.seeds)
assert (times["p99"] >= times["median"]).all()
assert main["median"].is_monotonic_increasing or here.profile == "smoke"

# %% [markdown]
# ## What fails
#
# - **Times do not travel.** Another processor, another build of torch, another load: the ratios
#   between rows, where neighbouring cells have them too, are worth more than the milliseconds.
# - **Python is part of it.** Part of a small network's time is the interpreter's and the
#   dispatcher's; a compiled controller may be faster. None was measured.
# - **A delay that is known is not a delay that is learnt.** A policy trained on delayed states may
#   do better than one that is merely told late; none was trained here.
#
# **To try.** `Study(..., overrides={"diffusion": {"num_denoising_steps": 2}})` in
# [02](02_diffusion_policy.ipynb): does the score fall with fewer steps, or rise?
