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
# **Run time** beyond shared models: about 15 s at `smoke`, about 2 min at `laptop`; most of it is
# the evaluation of guided sub-policies.
#
# **Inputs.** The diffusion policy of notebook 02 on Hopper-medium, seed 0.
#
# **Outputs.** Eight figures and their tables, all named `04_*`.

# %% tags=["parameters"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop
seed: int = 0  # of the diffusion policy and of the sub-policies' noise
num_toy_seeds: int = 10  # sets of sub-policies on the toy
eta: float = 0.5  # η, the largest perturbation, in action units

# %%
import pandas as pd
import torch
from IPython.display import Markdown
from torch.distributions import Normal

from uepo_lib import divergence as dv
from uepo_lib import diversity, notebook, statistics, toys
from uepo_lib.figures import diversity as forms
from uepo_lib.figures import embedding as members
from uepo_lib.figures import mechanisms
from uepo_lib.stages import Study
from uepo_lib.subpolicies import equal_power_controls

# %%
drawn = ["gaits", "perturbation", "toy_guidance", "hopper_divergence", "hopper_returns"]
drawn += ["diversity_objective", "diversity_gaussians", "diversity_embedding"]
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
# is, to div, the same policy. On data with a single mode that is exactly how fixed initial noise
# acts (notebook 03), so the part of diversity that changes returns can be the part that div does
# not see.
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
# since differencing doubles the noise and second differences of noise point anywhere. A moving
# average over three steps removes most of it and leaves the antiphase pair nearly untouched. So
# this companion never shows a div alone: beside it stands its *noise floor*, div between repeats
# of one behaviour, and div of low-passed actions.

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
# `divergence.Guidance` does this on x̂₀ at every reverse step but the last. Its noise is drawn
# once, so that a guided sub-policy is still a function of the state, and η falls to 0 along the
# steps (A3, A11). For τ itself the paper gives no number: here it is the median nearest-neighbour
# div of the *unguided* set, fixed before anything is guided.
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
here.draw("04_perturbation", mechanisms.perturbation_table((0.5, 1.0, 2.0), eta), task="formula")

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
# whatever happens is the mechanism and not a matter of training. Four sub-policies, several sets
# of seeds, η from weak to strong. Two controls have the same root-mean-square power as guidance:
# *ungated* noise at the same steps, whatever the divergence, and white noise on the
# *final* actions, as large as all that guidance did to them.
#
# Three numbers. The share of calls in which all sub-policies are at least τ apart is what
# guidance aims at. The number of modes among the four is what one wants from it. The share of
# plans within a mode's support says what it broke.
#
# **Expectation.** Guidance raises the first and the second, more than the controls.

# %%
toy = toys.four_modes()
etas, toy_seeds = sorted({0.25, 1.0, 2.0, eta}), range(num_toy_seeds)
table = mechanisms.toy_guidance_table(toy, 4, etas, toy_seeds)
here.draw("04_toy_guidance", table, task="toy, four doors", seeds=list(toy_seeds))

# %%
at_eta = table[table["eta"] == eta]
columns = ["call_share", "member_share", "div", "low_passed", "modes", "in_support"]
means = at_eta.groupby("set", sort=False)[columns].mean()
means.round(2)

# %%
plain, guided, final = (means.loc[name] for name in ("unguided", "guided", "final"))
Markdown(
    f"**Result, η = {eta}, {num_toy_seeds} sets.** Calls with all sub-policies at least τ apart: "
    f"{plain.call_share:.0%} unguided, {guided.call_share:.0%} guided, {final.call_share:.0%} with "
    f"white noise on the final actions. Modes among the four: {plain.modes:.2f}, "
    f"{guided.modes:.2f}, {final.modes:.2f}; independent draws give "
    f"{toys.null_coverage(4):.2f}. Plans within a mode: {plain.in_support:.0%}, "
    f"{guided.in_support:.0%}, {final.in_support:.0%}."
)

# %%
rows = [
    f"- *Guided above {other}, {what}:* "
    + statistics.verdict(mechanisms.paired(at_eta, column, "guided", other))
    for column, what in (("call_share", "share of calls at τ"), ("modes", "modes"))
    for other in ("unguided", "ungated")
]
Markdown("**Verdict on this toy**, paired by set, 95 % intervals:\n\n" + "\n".join(rows))

# %% [markdown]
# **What to see.** The surest way to a high div is to jitter finished actions: it reaches τ in
# most calls, finds no new mode, and leaves the support of the data. Noise on x̂₀ behaves better
# for the same reason that it does less: the reverse steps after it are a denoiser, and take most
# of it out again. What remains of it does not know where the other modes are, so it does not
# steer a sub-policy to a free one.
#
# Final noise leaves the modes as they were, since it comes after the choice has been made:

# %%
assert abs(means.loc["unguided", "member_share"] - 0.5) < 0.01  # what a median means
assert means.loc["final", "call_share"] > means.loc["guided", "call_share"]
assert means.loc["final", "div"] > means.loc["unguided", "div"]
assert means.loc["final", "in_support"] < means.loc["unguided", "in_support"]
assert abs(means.loc["final", "modes"] - means.loc["unguided", "modes"]) < 0.05

# %% [markdown]
# ## Hopper
#
# The same four sets on the robot, in 256 states of the dataset. Beside them stands the noise
# floor: the zero-noise policy, repeated as often as there are sub-policies, with the action noise
# that the dataset was collected with.

# %%
study = Study("hopper-medium", seed, here.profile, progress=False)
model = study.diffusion_policy()
ensembles = {
    "unguided": study.sub_policies(model, kappa=1.0),
    "guided": study.sub_policies(model, kappa=1.0, guided=True, eta=eta),
}
past = study.starts(256, "calibration")
for name in ("ungated", "final"):
    ensembles[name] = ensembles["guided"].derive(
        lambda policies, name=name: equal_power_controls(policies, past)[name], {"control": name}
    )
rule = ensembles["guided"].value.guidance.config
print(f"n = {ensembles['guided'].value.n}, τ = {rule.threshold:.2f}, floor {rule.floor:.3f}")

# %%
plans = {name: product.value.plan_shared(past) for name, product in ensembles.items()}
noise_std = torch.tensor(study.dataset.metadata["recipe"]["parts"][0]["action_noise"])
base = study.zero_noise(model).value.plan_shared(past)
draw = torch.randn(plans["unguided"].shape, generator=study.generator("noise floor"))
plans["one policy, data's noise"] = (base + noise_std.float() * draw).clamp(-1, 1)
levels = mechanisms.quantile_table(plans, rule.threshold, rule.floor)
here.draw("04_hopper_divergence", levels, model.runs, task="hopper-medium")

# %%
shares = pd.DataFrame(
    {name: mechanisms.reached(a, rule.threshold, rule.floor) for name, a in plans.items()}
).T
shares.round(2)

# %%
floor_div = shares.loc["one policy, data's noise", "div"]
Markdown(
    f"**Result, seed {seed}.** Sub-policies at least τ from their nearest neighbour: "
    f"{shares.loc['unguided', 'member_share']:.0%} unguided (τ is their median), "
    f"{shares.loc['guided', 'member_share']:.0%} guided, "
    f"{shares.loc['ungated', 'member_share']:.0%} with ungated noise and "
    f"{shares.loc['final', 'member_share']:.0%} with white noise on the final actions, both of "
    f"equal power. Mean div is {shares.loc['unguided', 'div']:.2f} unguided and "
    f"{shares.loc['guided', 'div']:.2f} guided, where repeats of one policy with the dataset's "
    f"action noise reach {floor_div:.2f}."
)

# %%
assert abs(shares.loc["unguided", "member_share"] - 0.5) < 0.01
assert torch.equal(plans["guided"], ensembles["guided"].value.plan_shared(past))  # a function of s

# %% [markdown]
# **What to see.** τ lies where the unguided set is at its median, by definition. If the unguided
# curve lies below the noise floor, the sub-policies differ from each other by less than one noisy
# policy differs from itself, and reaching τ by noise is no achievement. The gap between *guided*
# and *ungated* is what the gate, the paper's own idea, is worth.
#
# ### What it costs
#
# A guided sub-policy needs its n − 1 neighbours in its own state, so acting with one costs n
# plans; alone, an unguided one costs one. And noise on actions can cost return. Every dot is a
# sub-policy, from the same reset seeds.

# %%
one_state = past[:1]
alone = mechanisms.planning_time(ensembles["unguided"].value.select(0), one_state)
together = mechanisms.planning_time(ensembles["guided"].value, one_state)
n = ensembles["guided"].value.n
print(f"one sub-policy, alone: {alone:.1f} ms a plan, 1 sequence denoised")
print(f"one sub-policy, guided: {together:.1f} ms a plan, {n} sequences denoised")

# %%
judged = [name for name in ensembles if name != "final"]
episodes = here.budget.curve_episodes
evaluations = {name: study.evaluate(ensembles[name], episodes) for name in judged}
robot = study.task.robot
returns = pd.DataFrame(
    {"set": name, "member": i, "score": robot.normalised(float(mean))}
    for name, seen in evaluations.items()
    for i, mean in enumerate(seen.value.returns.mean(1))
)
runs = [seen.run for seen in evaluations.values()]
here.draw("04_hopper_returns", returns, runs, task="hopper-medium")

# %%
scores = returns.groupby("set", sort=False)["score"].agg(["mean", "min", "max", "std"])
notes = "\n".join(f"- {note}" for note in robot.notes)
Markdown(
    f"**Result, seed {seed}, {episodes} episodes a sub-policy.** Mean score "
    + ", ".join(f"{row['mean']:.1f} {name}" for name, row in scores.iterrows())
    + "; spread between sub-policies (standard deviation) "
    + ", ".join(f"{row['std']:.1f} {name}" for name, row in scores.iterrows())
    + f". One seed describes, it does not decide: *inconclusive*.\n\n{notes}"
)

# %% [markdown]
# ## The KL-style term
#
# Beside the perturbation the paper keeps a term from Uni-O4, lifted from actions to sequences:
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
# JS is the Jensen–Shannon divergence of the two, the mean of `separating_term` on their samples.
# As printed, J is largest at δ = 0 for every α. In the separating form two parabolas compete, and
# equal members stop being the best at α = 1.

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
alphas = (0.1, 10.0) if quick else (0.1, 0.5, 1.0, 2.0, 10.0)
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
# Four embeddings, from fresh noise, under each form. *Persistence* is the share of states in which
# a member heads for its own favourite door; 1/4 is none. The control is told: member m learns from
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
    assert min(forms.of(embedded, "persistence", members.ORACLE, 0.0)) > 0.9
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
# - **Guided sub-policies that are deployed alone.** Without their neighbours they are the
#   unguided ones; guidance is for generating data (notebook 05), and is off once π* is chosen.
