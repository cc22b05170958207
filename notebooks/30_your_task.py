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
# # 30 · Your task: bring a Gymnasium environment or a Minari dataset
#
# **Question.** What does it take to run all of this on a task of your own, and how do you see
# whether each part of it works there?
#
# **Paper.** Algorithm 1, as in `methods/uepo.py`; nothing here depends on the robot.
#
# **Our choices.** The task of this page is made on the spot: a point that must pass a pillar on the
# left or on the right, in twenty lines. Yours takes its place: change the four cells that begin
# with `# example`. Scores, health and the dataset are then of your task, and the first figure shows
# its first two observed numbers, without the pillar. One seed: this page shows how, and has no
# verdict.
#
# **Run time** about 30 seconds at `smoke`, about two minutes at `laptop`.
#
# **Inputs.** None: the data are collected here, without a network.
#
# **Outputs.** Two figures with their tables, and a table of what works.

# %% tags=["parameters", "long"]
profile: str | None = None  # None: $UEPO_PROFILE, else laptop

# %%
import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import RescaleAction
from IPython.display import Markdown

from uepo_lib import notebook, own, tasks
from uepo_lib.errors import UsageError
from uepo_lib.figures import your_task as views
from uepo_lib.health import health
from uepo_lib.methods.bc import bc
from uepo_lib.methods.uepo import uepo
from uepo_lib.stages import Study

# %%
outputs = [p for d in ("paths", "scores") for p in (f"figures/30_{d}.png", f"tables/30_{d}.csv")]
here = notebook.start("30_your_task", profile, [*outputs, "tables/30_health.csv"])

# %% [markdown]
# ## An environment
#
# Any environment with a vector observation and actions in [-1, 1] will do; of a dictionary of
# vectors, `own.robot(..., observation_keys=("observation", "desired_goal"))` makes one, and
# `max_episode_steps=200` sets a time limit where none is registered. One of MuJoCo's needs nothing
# else. Another one also needs `get_state`, which returns a vector of floats, and `set_state`, which
# goes on exactly from there: an online run that was interrupted is resumed bit for bit, so somebody
# must know where everything is.
#
# *The example.* The point starts at (−1, 0) and wants to (1, 0). A pillar of radius 0.4 stands at
# the origin: a step into it is not made. The reward is the distance won, and 1 on arrival.


# %%
# example: your environment, if Gymnasium does not have it yet
class Pillar(gymnasium.Env):
    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012
    observation_space = Box(-3.0, 3.0, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.set_state(np.array([-1.0, 0.0]) + 0.05 * self.np_random.standard_normal(2))
        return self.get_state(), {}

    def step(self, action):
        before, there = self.left(), np.clip(self.at + 0.1 * action, -3, 3)
        self.at = there if np.linalg.norm(there) > 0.4 else self.at
        arrived = self.left() < 0.2
        return self.get_state(), before - self.left() + arrived, arrived, False, {}

    def left(self):
        return float(np.linalg.norm(self.at - [1.0, 0.0]))

    def get_state(self):
        return self.at.copy()

    def set_state(self, values):
        self.at = np.array(values)


gymnasium.register("Pillar-v0", entry_point="__main__:Pillar", max_episode_steps=60)

# %% [markdown]
# ## A robot
#
# `own.robot` reads the sizes from the environment. Three things it cannot read: the return that
# scores 0, the one that scores 100, and the rule by which a *state* ends an episode. $\hat T$
# imagines episodes and has no environment to ask. The rule gets the observations that steps
# reached, not standardised, as a tensor (..., S), and returns a bool (...).
#
# *The example.* The rewards of an episode add up to the distance won. Who stays earns 0; who
# arrives earns about 1.8 for the way, as the goal is reached 0.2 before its centre, and 1 on
# arrival: 2.8.


# %% tags=["nbval-check-output"]
# example: your robot
def arrived(states):
    return (states - torch.tensor([1.0, 0.0])).norm(dim=-1) < 0.2


point = own.robot("Pillar-v0", random_return=0.0, expert_return=2.8, terminated=arrived)
print(point.name, point.state_dim, point.action_dim, point.max_episode_steps, point.step_seconds)
assert (point.state_dim, point.action_dim, point.max_episode_steps) == (2, 2, 60)
assert (views.PILLAR, views.GOAL) == ((0, 0, 0.4), (1, 0, 0.2))  # which the first figure draws

# %% [markdown]
# What does not fit is refused in one line that says what would. A pendulum's action reaches to 3:

# %% tags=["nbval-check-output"]
try:
    own.robot("InvertedPendulum-v5", random_return=5.0, expert_return=1000.0)
except UsageError as error:
    print(error)
rescaled = own.robot(
    "InvertedPendulum-v5", random_return=5.0, expert_return=1000.0,
    wrapper=lambda env: RescaleAction(env, np.float32(-1), np.float32(1)),
)  # fmt: skip
assert rescaled.state_dim == 4

# %% [markdown]
# ## A dataset
#
# `Task` takes a name, the robot, the dataset's Minari id, a sentence about it, and the word "own".
# If you have such a dataset, that is all: set `MINARI_DATASETS_PATH` to where it lies before the
# first `Study`, leave out `own.collect`, and go on with `own.verify`. Its arrays are kept beside
# it, or, if nothing can be written there, in a folder that `UEPO_ARRAYS` names.
#
# Here one is made, by a script. A script gets an observation and a generator; its action is clipped
# to [-1, 1].
#
# *The example.* This one is noisy and goes round the pillar on either side. What it does near the
# middle line is a coin's choice, so the data have two modes, and their mean leads into the pillar.


# %%
# example: your script and your task; without own.collect if the dataset is there
def two_ways(at, generator):
    side = np.sign(at[1]) if abs(at[1]) > 0.1 else generator.choice([-1.0, 1.0])
    way = np.array([0.0, 0.7 * side] if at[0] < 0 else [1.0, 0.0]) - at
    return way / max(np.linalg.norm(way), 0.1) + 0.2 * generator.standard_normal(2)


task = tasks.register(
    tasks.Task("pillar-two-ways", point, "own/pillar/two-ways-v0", "two ways round", "own")
)
_ = own.collect(task, here.profile, two_ways, 1_500 if here.profile == "smoke" else 10_000)

# %% [markdown]
# A `Study` is one task, seed and budget; `overrides` changes any setting of any part. This task is
# small, so less is spent on it than on a robot: the times that are printed before a part is
# computed are those of the profile's usual sizes, and at `laptop` these parts take less.
#
# Three entries follow from the task: `amq.horizon`, about an episode, a multiple of $T_a = 4$;
# `augmentation.horizon`, shorter than the longest held-out episode; `num_env_steps`, what your
# robot can afford. The rest is only smaller, to be quick. A name that does not exist is refused.
#
# `own.verify` compares the rule with the data, at every step. It says too how many episodes have
# fewer than $T = 8$ steps: they teach the diffusion policy nothing.

# %%
# example: your sizes; {} for the profile's own
lighter = {
    "diffusion": {"num_updates": 1_500}, "clone": {"num_updates": 2_000},
    "critic": {"num_updates": 5_000, "hidden_q": (64, 64), "hidden_v": (64, 64)},
    "dynamics": {"max_updates": 1_000}, "augmentation": {"ratio": 0.5, "horizon": 20},
    "amq": {"num_starts": 32, "horizon": 40},
    **{ppo: {"num_env_steps": 4_096, "steps_per_update": 512, "warmup_env_steps": 512}
       for ppo in ("chain_ppo", "gaussian_ppo")},
}  # fmt: skip
chosen = {} if here.profile == "smoke" else lighter
study = Study(task.name, 0, here.profile, chosen, progress=False)
own.verify(study.dataset)
print(f"{len(study.dataset):,} steps in {len(study.dataset.bounds):,} episodes")

# %% [markdown]
# ## All of the method
#
# **Expectation** for the example, written before it ran: the Gaussian clone, whose mean is what it
# does, walks into the pillar; most sub-policies of the diffusion policy go round it, some left and
# some right.

# %%
made, cloned = uepo(study), bc(study)
_ = made.online_dynamics.run  # a product is computed when it is asked for; this needs all others
subpolicies = study.sub_policies(made.model, 1.0)
played = {
    "clone": cloned.clone, "clone, online": cloned.online, "sub-policies": subpolicies,
    "π*": made.selected, "π*, online": made.online,
}  # fmt: skip
runs = [product.run for product in played.values()]

# %%
policies = {name: product.value for name, product in played.items()}
episodes = 8 if here.profile == "smoke" else 16
paths = views.paths_table(study, policies, episodes)
here.draw("30_paths", paths, runs, task=task.name)

# %% [markdown]
# A dot is where an episode ends. Every sub-policy plays some of the episodes here, and all of them
# in the scores below. *The example:* grey is the pillar, green the goal; a dot at x = 3 missed the
# goal and went on to the edge.

# %%
Markdown(views.came_to(paths))

# %% [markdown]
# In the scores a dot is one policy (each sub-policy has its own), and a bar the mean of its dots.
# Where π* scores below most sub-policies, AM-Q chose badly: its row of the health panel below, and
# *an end that is a success* under *what fails*, are where to look.

# %%
returns = {name: study.evaluate(product, episodes) for name, product in played.items()}
scores = views.scores_table(study, {name: product.value for name, product in returns.items()})
here.draw("30_scores", scores, [p.run for p in returns.values()], task=task.name)

# %%
mean = scores.groupby("policy", sort=False)["score"].mean()
Markdown(", ".join(f"{name}: **{round(score)}**" for name, score in mean.items()) + ". One seed.")

# %% [markdown]
# ## Does each part work?
#
# A score says that something is wrong, not what. Each part has a number, and beside it the number
# that it must beat: a clone that errs as much as the actions vary has learnt nothing, a $\hat T$
# that is no better than standing still cannot choose. AM-Q's correlation is over a few
# sub-policies, so it must beat what chance alone would exceed once in twenty. The two $\hat T$ are
# tested on episodes that they did not learn from; the clone, the diffusion policy and Q learnt from
# all of the data, so of them the table says that training fitted.

# %%
checked = health(study, made)
here.table(checked, "30_health", runs, task=task.name)
checked.round(3)

# %%
# what is well on the example; on your task the table says
assert np.isfinite(checked["value"]).all()
if here.profile != "smoke" and views.is_example(paths):
    well = checked.set_index("part")["well"]
    assert well["diffusion policy"] and well["T̂"] and well["sub-policies"]

# %% [markdown]
# ## What fails
#
# - **A partial observation.** What the next step depends on must be observed, or at least be seen
#   in a few past states: `overrides={"denoiser": {"obs_horizon": 2}}`.
# - **Pictures.** An observation is a vector here; [15](15_pixels.ipynb) says what a picture would
#   cost.
# - **Discrete actions.** The divergence needs velocities of actions; `own.robot` refuses them.
# - **An end that is a success.** By default AM-Q counts nothing after an imagined end, as after a
#   fall. Where an end is an arrival, as in the example, who arrives early forfeits the steps that
#   remain, and where Q < 0 to end at once is best: choose
#   `overrides={"amq": {"score": "model_return"}}`.
# - **Settings.** Nearly all that was tuned was tuned on Hopper (the unit of the critics on the pen
#   too); the table above says where to look first.
# - **A changed environment.** A run is named by its data and its settings; a dataset that is there
#   is kept. If you change `step` or the script, give the dataset another id.
# - **Another process.** A task that is registered in a notebook is known in that notebook. For the
#   command line put the environment and its `Task` into a module, `my_task.py`, the environment
#   registered as `my_task:Pillar` (the class), and name it: `python -m uepo_lib run uepo --import
#   my_task --task pillar-two-ways`.
#
# ## Further
#
# Other seeds: `[uepo(Study(task.name, s, here.profile, chosen)) for s in range(5)]`. The baselines:
# `uni_o4(study)` and `iql(study)`, both from `uepo_lib.methods`. To keep $\pi^*$ in a file:
# `portable.save_policy(path, made.selected.value, study.dataset)` ([03](03_subpolicies.ipynb)).
#
# **To try**, on the example. Put a second pillar into the way, or move the start to one side so
# that one way is shorter; and call the dataset `own/pillar/two-ways-v1`, so that the data and all
# runs are made anew.
