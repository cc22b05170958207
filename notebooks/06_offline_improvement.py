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
# # 06 · Offline improvement: which policy is best, untried?
#
# **Question.** One diffusion model gives many policies. One of them goes online. Can it be chosen
# without trying any of them in the environment, and how good is such a choice?
#
# | | |
# |---|---|
# | **Paper** | the last offline line of Algorithm 1, $\pi^* \leftarrow$ the best sub-policy |
# | **Our choices** | A2 (candidates), A9 (the score), A13 (offline improvement: none or PPO) |
# | **Run time** | beyond shared models: seconds at `smoke`, under a minute at `laptop` |
# | **Inputs** | Hopper-medium; policies, critic and dynamics model of every seed |
# | **Outputs** | six figures with their tables, and the table of rank correlations |
#
# Three tools are needed: a critic that learns from the data alone (IQL), a score that combines it
# with the dynamics model (AM-Q), and a set of candidates. Then comes the judgement, with true
# returns that the choice never saw.

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop
num_states: int = 400  # logged states whose values are shown
discount: float = 0.99  # γ of the toys; the critic has its own, from its configuration

# %%
from types import SimpleNamespace

import pandas as pd
import torch
from IPython.display import Markdown
from torch import Tensor

from uepo_lib import evaluation, notebook, settings, statistics
from uepo_lib.figures import improvement as improving
from uepo_lib.figures import selection as views
from uepo_lib.figures.policy import both
from uepo_lib.methods.uepo import UEPOConfig, uepo
from uepo_lib.stages import Study
from uepo_lib.values import expectile_loss

# %%
NAMES = ["value_extrapolation", "critic_values", "selection", "selection_regret"]
NAMES += ["acceptance_rule", "offline_improvement"]
outputs = [*both(*NAMES), "tables/selection_correlation.csv"]
here = notebook.start("06_offline_improvement", profile, outputs)
studies = [Study("hopper-medium", s, here.profile, progress=False) for s in here.budget.seeds]
robot = studies[0].task.robot

# %% [markdown]
# ## Q and V from data alone
#
# A value function answers "what follows if I do this?". Offline it must not be asked about actions
# that nobody tried: a function fitted to data says anything where there is none, and a maximum
# over actions goes looking for exactly the place where it errs upwards. Implicit Q-learning
# ([arXiv 2110.06169](https://arxiv.org/abs/2110.06169)) never asks. Its V is an *expectile* of Q
# over the actions *in the data*, and its Q is regressed onto V:
#
# $$L_2^\tau(u) = |\tau - \mathbb{1}(u < 0)|\, u^2$$
#
# $$L_V = \mathbb{E}_D\big[L_2^\tau\big(\min_i \bar Q_i(s, a) - V(s)\big)\big], \qquad
# L_Q = \mathbb{E}_D\big[\textstyle\sum_i (r + \gamma (1 - d) V(s') - Q_i(s, a))^2\big]$$
#
# Every $(s, a)$ in these lines is a row of the log. $\bar Q_i$ are copies of the two $Q_i$ that
# follow them slowly, the target networks. With $\tau = \tfrac12$ (the expectile's τ, not the
# threshold of 04) the expectile is the mean; as $\tau \to 1$ it climbs to the largest value that
# was *seen*. The $d$ marks a fall: after it nothing follows. Where the clock merely ran out, the
# future is bootstrapped.
#
# ### By hand
#
# Three returns were seen in one state: 0, 0 and 10. The expectile $e$ balances the pulls from both
# sides, $\tau (10 - e) = (1 - \tau)\, 2e$, so $e = 10\tau / (2 - \tau)$. **Expectation:** the
# gradient of the library's loss vanishes there.

# %% tags=["nbval-check-output"]
seen = torch.tensor([0.0, 0.0, 10.0], dtype=torch.float64)
for tau in (0.5, 0.7, 0.9, 0.99):
    v = torch.tensor(10 * tau / (2 - tau), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(expectile_loss(seen - v, tau), v)
    assert abs(slope) < 1e-12
    assert abs(views.expectile(seen.tolist(), tau) - v) < 1e-12
    print(f"τ = {tau}: V = {v:.2f}")

# %% [markdown]
# ### What a maximum would do
#
# One state, one action. The true return is $1 - a^2$, best at 0. The data holds actions from the
# middle half only, with noisy returns. A polynomial plays the part of a flexible network.
# **Expectation:** within the data it fits; its maximum over all actions lies where no data is, and
# is higher than anything true. The expectiles stay among the values that were seen.

# %% tags=["nbval-check-output"]
toy = views.extrapolation_table()
fit, seen_rows = (toy[toy.what == what] for what in ("fit", "seen"))
highest = fit.loc[fit.value.idxmax()]
V = {tau: views.expectile(seen_rows.value.tolist(), tau) for tau in (0.5, 0.7, 0.9)}
assert abs(highest.action) > seen_rows.action.abs().max(), "the maximum lies in the data"
assert highest.value > 1 + seen_rows.value.std(), "the maximum is no fantasy"
assert all(seen_rows.value.min() < v < seen_rows.value.max() for v in V.values())
print(f"maximum of the fit: {highest.value:.1f} at a = {highest.action:+.1f}; true maximum 1 at 0")
print("V:", {tau: round(v, 2) for tau, v in V.items()})

# %%
here.draw("value_extrapolation", toy, task="toy", seeds=[])

# %% [markdown]
# **What to see.** The curve leaves through the top. A policy that climbs it executes an action that
# nobody has tried, and learns of the error only online.
#
# ### On the robot
#
# In medium nearly every whole episode ends in a fall, so the discounted return that followed a
# logged state is known. **Expectation:** V ranks states as the log does, and lies above the average
# of what followed, since $\tau > \tfrac12$ takes the better actions of each state.

# %%
found = {study.seed: uepo(study) for study in studies}

# %%
data = studies[0].dataset
critics = {seed: made.critic.value for seed, made in found.items()}
gamma = studies[0].config("critic").discount
values = views.values_table(data, critics, num_states, gamma)
here.draw("critic_values", values, [made.critic.run for made in found.values()],
          task="hopper-medium")  # fmt: skip

# %%
by_seed = values.groupby("seed")
ranks = by_seed[["followed", "value"]].corr("spearman").iloc[0::2, 1].droplevel(1)
above = by_seed.apply(lambda part: (part.value - part.followed).mean())
assert values.value.notna().all()
Markdown(
    f"Rank correlation of V with what followed: {', '.join(f'{r:.2f}' for r in ranks)}. "
    f"V minus what followed, on average: {', '.join(f'{d:+.1f}' for d in above)} "
    f"(mean of what followed: {values.followed.mean():.1f}). **Verdict.** V "
    f"{'ranks' if (ranks > 0).all() else 'does **not** rank'} states as the log does in every "
    f"seed; it lies above what followed in {(above > 0).sum()} of {len(above)} seeds"
    f"{'' if (above > 0).any() else ', **not as expected**'}."
)

# %%
iql, published = studies[0].config("critic"), 400  # Uni-O4: 0.005 every second update
lag = iql.target_every / iql.polyak
reach, slow = iql.num_updates / lag, iql.num_updates / published
Markdown(
    f"**How far value travels.** It goes back one step with each renewal of the target network, "
    f"which lags {lag:.0f} updates behind: {iql.num_updates:,} updates carry it back about "
    f"{reach:.0f} steps, and γ looks {1 / (1 - gamma):.0f} steps ahead. With Uni-O4's target, made "
    f"for two million updates, it would be {slow:.0f}: the critic is then short-sighted, and AM-Q "
    f"with it (`--set critic.polyak=0.005` shows it). Hence a faster target in a small budget."
)

# %% [markdown]
# **In which unit.** Rewards add up to values of hundreds on Hopper and of thousands on the pen. A
# network starts near zero and Adam's steps are of one size, so much of a small budget may go
# into growing. Q and V are therefore learnt in units of mean $|r| / (1 - \gamma)$ and
# multiplied afterwards. Uni-O4 learns them raw, in two million updates (`--set
# critic.scale_rewards=false`). What that is worth shows where the critic is climbed, in offline
# PPO, below.
#
# Two things keep the correlation from 1. The log is one draw of noise after each state, and V is
# its average; and V is an expectile over the dataset's actions, which is no policy's value. The
# critic has also seen these states: the figure shows what it learnt, not how it generalises.
#
# ## AM-Q: the critic rides in the model
#
# Q judges an action in a logged state. A policy is judged by where it goes. AM-Q (Uni-O4,
# [arXiv 2311.03351](https://arxiv.org/abs/2311.03351)) rolls every candidate out in $\hat T$ from
# states of $D$ and averages Q along the way:
#
# $$\mathrm{AMQ}(\pi) = \mathbb{E}\,\Big[\frac1H \sum_{t<H} \min_i Q_i(\hat s_t, a_t)\Big], \qquad
# a_t = \pi(\hat s_t), \quad \hat s_{t+1} = \mu_{e_t}(\hat s_t, a_t)$$
#
# $e_t$ is an elite of $\hat T$, drawn at every step, and $\mu_{e_t}$ the mean that it predicts:
# neither it nor the policy adds noise that a candidate could be lucky with. All candidates get the
# same starts and the same draws of $e_t$. A policy of chunks plans, executes $T_a$ actions and
# plans again. What the formula leaves open is an imagined trajectory that *ends*.
# `evaluation.am_q` computes three readings:
#
# - **published**: average over the live steps of all trajectories;
# - **dead_zero**: count $Q = 0$ for each step after the end;
# - **model_return**: no Q on the way, $\sum_k \gamma^k \hat r_k + \gamma^H V(\hat s_H)$.
#
# ### A toy with a known answer
#
# A world with a clock and a wound. Q is 100 for the first fifty steps and 80 afterwards: later
# states are a little worse, as they are when a gait drifts from the data. Each action below zero
# wounds; the sixtieth wound is fatal. Candidate 0 always wounds itself, candidate 1 never does.


# %%
def wounded(states: Tensor) -> Tensor:
    return states[..., 1] >= 60


def step(states, actions, member, sample) -> tuple[Tensor, Tensor]:
    wound = (actions[:, 0] < 0).float()
    after = torch.stack([states[:, 0] + 1, states[:, 1] + wound], dim=1)
    return after, torch.ones(len(states))


world = SimpleNamespace(draw_elites=lambda count, _: torch.zeros(count).long(), step=step)
judge = SimpleNamespace(
    min_q=lambda states, _: 80 + 20 * (states[:, 0] < 50),
    v=lambda states: torch.full((len(states),), 80.0),
)


# %%
class Reckless:
    """Candidate 0 acts −1, candidate 1 acts +1."""

    n, obs_horizon, action_horizon = 2, 1, 1

    def act(self, states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, states.shape[1], 1, 1)


# %% [markdown]
# **Expectation**, with a pencil: death at step 60 scores $(50 \cdot 100 + 10 \cdot 80)/60$ as
# published, survival $(50 \cdot 100 + 950 \cdot 80)/1000$. The early death wins.

# %% tags=["nbval-check-output"]
cfg = evaluation.AMQConfig(num_starts=4, horizon=1000, discount=discount)
toy_scores = evaluation.am_q(
    Reckless(), world, judge, torch.zeros(4, 1, 2), SimpleNamespace(terminated=wounded),
    SimpleNamespace(inverse=lambda states: states), cfg, torch.Generator().manual_seed(0),
)  # fmt: skip
by_hand = {"published": ((50 * 100 + 10 * 80) / 60, (50 * 100 + 950 * 80) / 1000)}
assert torch.allclose(toy_scores["published"], torch.tensor(by_hand["published"]), atol=1e-3)
pd.DataFrame(toy_scores, index=["dies at 60", "survives"]).astype(float).round(1)

# %%
dies, survives = (toy_scores[name].argmax().item() for name in ("published", "dead_zero"))
assert dies == 0 and survives == 1 and toy_scores["model_return"].argmax() == 1
assert abs(float(toy_scores["dead_zero"][0]) - 5800 / 1000) < 1e-3
closed = (1 - discount**60) / (1 - discount)
assert abs(float(toy_scores["model_return"][0]) - closed) < 1e-2
print("the published mean prefers the candidate that dies; the other two prefer the survivor")

# %% [markdown]
# The mean over live steps is a mean over a set that the policy chooses by dying. On a robot that
# falls this is no corner case. So `dead_zero` is the default here, for all methods; the other two
# are shown beside it (A9).
#
# ## The candidates
#
# A candidate is a pair $(i, \kappa)$: a fixed noise and its temperature (notebook 03). The paper as
# printed has $\kappa = 1$ only. $\kappa = 0$ is the same policy for every noise, so it counts once.

# %%
kappas = UEPOConfig().kappas
table, runs = views.candidates_table(studies, found, kappas)
counts = table.groupby(["seed", "kappa"]).size().unstack()
n = here.budget.num_subpolicies
assert (counts[0.0] == 1).all() and (counts.drop(columns=0.0) == n).all().all()
assert (table.groupby("seed").chosen.sum() == 1).all()
counts

# %% [markdown]
# The rule is an argmax, `methods.uepo.select`; the choice that Algorithm 1 made in this store is
# the one marked in the table.

# %%
for seed, made in found.items():
    row = table[(table.seed == seed) & table.chosen].iloc[0]
    member, kappa = made.best.config["member"], made.best.config["kappa"]
    assert (member, kappa) == (row.member, row.kappa), "Algorithm 1 chose another one"
    print(f"seed {seed}: κ = {row.kappa:g}, sub-policy {row.member}")

# %% [markdown]
# ## The judgement
#
# Each candidate also plays in the environment, from one set of reset seeds. These episodes belong
# to this page: they judge the choice and were not used to make it. What they cost is counted, as
# every step in the environment is.

# %%
paid = views.spent(runs)
Markdown(
    f"Judging {len(table)} candidates took **{paid['steps']:,}** environment steps in "
    f"{paid['episodes']:,} episodes. κ = 0 played {here.budget.evaluation_episodes}, for other "
    f"pages too; here all are judged by the same {here.budget.curve_episodes}. Choosing by AM-Q "
    "took none."
)

# %% [markdown]
# **Expectation.** The default score ranks candidates better than chance: its rank correlation with
# the true return is positive in every seed. The published mean does worse where candidates fall at
# different times.

# %%
here.draw("selection", table, runs, task="hopper-medium")

# %%
correlation = views.correlation_table(table)
here.table(correlation, "selection_correlation", runs, task="hopper-medium")
correlation.round(2)

# %%
verdicts = {name: statistics.verdict(correlation[name]) for name in views.SCORES}
assert set(correlation.seed) == set(here.budget.seeds)
Markdown(
    "**Verdict**, a positive rank correlation: "
    + "; ".join(f"`{name}` {text}" for name, text in verdicts.items())
    + f". Mean correlation: {', '.join(f'{correlation[k].mean():+.2f}' for k in views.SCORES)}. "
    + improving.published_verdict(correlation)
)

# %% [markdown]
# **What to see.** A row is a seed, a column a score. A score that ranks well climbs from the lower
# left to the upper right; ρ, over each panel, is Spearman's. Where true returns lie in two bands,
# most of ρ says which band a candidate is in, and little says which is best within it. If the
# colours sort the true return better than the horizontal axis does, then κ carries most of the
# information, and AM-Q is good as far as it recovers κ. A correlation that comes from groups says
# little about a choice *within* a group, so here it is within one κ:

# %%
grouped = table[table.kappa > 0].groupby(["kappa", "seed"])
within = grouped[["dead_zero", "return"]].corr("spearman").iloc[0::2, 1].droplevel(2)
within.unstack().round(2).rename_axis(columns="seed")

# %% [markdown]
# ### Regret
#
# What was lost by not choosing otherwise, in points of normalised score; negative means that AM-Q's
# choice was better. *Best candidate* is found on one half of the episodes and judged on the other,
# both ways: the largest of many noisy means is too large, and would make any choice look bad.
# *Random* is the mean over all candidates. **Expectation:** no regret against a random candidate
# and against $\kappa = 0$, some against the best.

# %%
regret = views.regret_table(table, robot)
here.draw("selection_regret", regret, runs, task="hopper-medium")

# %%
print("\n".join(robot.notes))
regret.pivot(index="seed", columns="against", values="regret").round(1)

# %%
gains = {name: -part.regret for name, part in regret.groupby("against", sort=False)}
assert all(len(gain) == len(here.budget.seeds) for gain in gains.values())
Markdown(
    "**Verdict**, AM-Q's choice is better than "
    + "; ".join(
        f"{name}: {statistics.verdict(gains[name])}" for name in ("random candidate", "κ = 0")
    )
    + ". "
    + views.regret_says(regret)
)

# %% [markdown]
# The comparison with $\kappa = 0$ is the one that matters: a selection that always took it would
# need no critic and no model. On data with a single noisy mode, zero noise aims at the mean action;
# how well a trained model hits it differs by seed. [03](03_subpolicies.ipynb) sets the returns of
# fixed noises beside it.
#
# ## Improving before choosing: offline PPO
#
# The paper names no offline improvement: UEPO as printed clones and selects. Uni-O4, on which it
# builds, runs PPO *offline* between the two. On states of $D$, with actions of the last accepted
# policy $\pi_{old}$,
#
# $$\max_\pi\; \mathbb{E}_{s \sim D,\, a \sim \pi_{old}}\big[\min(\rho A,\;
# \mathrm{clip}(\rho, 1 - c, 1 + c)\, A)\big], \qquad \rho = \pi(a|s) / \pi_{old}(a|s)$$
#
# with $A = \min Q - V$ for one action, and $\sum_{k<T_a} \gamma^k \hat r_k + \gamma^{T_a} V(\hat
# s_{T_a}) - V(s)$ through $\hat T$ for a chunk. Every 100 updates (at `smoke` 10) the policy is
# checked by AM-Q and, if it is better, becomes $\pi_{old}$. So `offline_improvement` is a
# parameter (A13): `none`, as printed, or `ppo`, on the denoising chain.
#
# When is it *better*? Uni-O4's code takes any higher score, from starts that it draws anew at
# every check. Here the starts stay, and the gain must exceed a margin of two standard errors of
# the paired difference. On a toy, policies of known worth are judged by noisy scores:

# %%
rule = improving.acceptance_toy()
here.draw("acceptance_rule", rule, task="toy, known worth", seeds=[0])

# %% tags=["nbval-check-output"]
equal = rule[rule["gain"] == 0].set_index("margin")["accepted"]
worse = rule[(rule["gain"] <= -2)].groupby("margin")["accepted"].max()
print(f"an equal policy is accepted: margin 0 {equal[0.0]:.0%}, margin 2 {equal[2.0]:.0%}")
print("worse by two standard errors, never accepted with the margin:", bool(worse[2.0] < 1e-3))
assert (rule["accepted"] - rule["expected"]).abs().max() < 0.02

# %% [markdown]
# Without a margin every other check of an equal policy is taken for progress, and a hundred checks
# are a walk upwards by luck. With it a policy that is worse by the margin stays out. Both follow
# the closed form $\Phi(\mathrm{gain} - \mathrm{margin})$.
#
# **On Hopper**, four Gaussians (Uni-O4) and one chain (UEPO's $\pi^*$), accepted checks as marks. A
# line begins at the first check, not at the starting policy, which is not drawn: how many policies
# beat theirs at that check is written where the lines begin.

# %%
ppo_runs = {study.seed: improving.improved_runs(study) for study in studies}
looks = improving.looks_table(ppo_runs)
used = [run for found_runs in ppo_runs.values() for run in found_runs.values()]
here.draw("offline_improvement", looks, used, task="hopper-medium")

# %%
taken = looks.groupby("method", sort=False)["accepted"].agg(["sum", "count"])
Markdown(
    "Accepted checks: "
    + "; ".join(f"{name} **{row['sum']} of {row['count']}**" for name, row in taken.iterrows())
    + ". Whether what AM-Q accepts is better in the environment is asked in "
    "[12_offline_to_online](12_offline_to_online.ipynb), on every task."
)

# %%
assert (looks.groupby(["seed", "method"])["member"].nunique().unstack()["Uni-O4"] == 4).all()

# %% [markdown]
# **What the critic's unit is worth.** The same clones with either critic, on a seed that no result
# uses: mean scores of the four members before and after offline PPO, noise-free and with their
# noise (`sampled_…`); `accepted` of `checks` says how often AM-Q took the new policy. They had
# 1,000 updates and critics of 20,000, `laptop`'s sizes of then.

# %%
pd.DataFrame(settings.TRIED_CRITIC).rename(columns={"looks": "checks"})

# %% [markdown]
# ## What fails
#
# - **Q outside the data.** AM-Q evaluates Q at states that $\hat T$ imagined and actions that a
#   sub-policy prefers. Far from $D$ both are guesses, and an argmax over candidates favours the
#   luckiest guess.
# - **A model that does not let the robot fall.** If imagined trajectories never end, all three
#   scores lose what tells candidates apart.
# - **Few episodes.** The true order of the candidates is estimated too; a perfect score would not
#   reach a rank correlation of 1.
# - **The same data everywhere.** Policy, critic and model learn from one log; their errors agree.
#
# **To try.** The choice by another score: `uepo(Study("hopper-medium", 0, here.profile, {"amq":
# {"score": "published"}})).selected.config`. Next:
# [07_online_finetuning](07_online_finetuning.ipynb), where the chosen policy meets the environment.
