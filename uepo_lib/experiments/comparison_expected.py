"""Were E3's expectations met? One line each, from its tables; see ``offline_to_online``.

No threshold was written down with them. "Alike" and "close" are read here as: the means differ by
less than one row's seeds do, by their standard deviation.
"""

from __future__ import annotations

import pandas as pd

from uepo_lib.experiments.comparison_selection import offline_improvement
from uepo_lib.experiments.comparison_verdict import gains


def expected(scores: pd.DataFrame, online: pd.DataFrame, selection: pd.DataFrame) -> list[str]:
    """All four, in the order in which they were written."""
    return [
        zero_noise_and_mean(scores, online), offline_ppo_helps(scores, online, selection),
        ends_are_close(scores, online), seeds_matter_less(selection),
    ]  # fmt: skip


def zero_noise_and_mean(scores: pd.DataFrame, online: pd.DataFrame) -> str:
    """κ = 0 and the Gaussian clone, noise-free, before the online phase; on medium data, which are
    one noisy policy's."""
    medium = scores[scores["task"].str.partition("@")[0].str.endswith("-medium")]
    return "On noisy data of one mode zero noise and the Gaussian mean score alike: " + _alike(
        medium, online, ("kappa_0", "bc"), "offline"
    )


def offline_ppo_helps(scores: pd.DataFrame, online: pd.DataFrame, selection: pd.DataFrame) -> str:
    """By policy class and task, as the mean over seeds, noise-free: of UEPO's choice, which stays
    the same one, and of Uni-O4's members. Its row has AM-Q's choice among them besides."""
    gained = gains(scores, online, {"chain": ("uepo_ppo", "uepo")})
    chain = gained[gained["measure"] == "offline"].groupby("task", sort=False)["gain"].mean()
    members = offline_improvement(selection).query("actions == 'noise-free'")
    both = {"diffusion": chain, "Gaussian, the mean member,": members.set_index("task")["gain"]}
    told = [
        f"{name} {', '.join(f'{gain:+.1f} on {task}' for task, gain in part.items())}"
        f" ({part.mean():+.1f} over tasks, above 0 on {(part > 0).sum()} of {len(part)})"
        for name, part in both.items()
    ]
    helped = pd.DataFrame({name: part > 0 for name, part in both.items()}).all(axis=1)
    return f"Offline PPO helps both: {'; '.join(told)}: {_by_task(helped)}."


def ends_are_close(scores: pd.DataFrame, online: pd.DataFrame) -> str:
    """The equal row without offline PPO, which all tasks have, after the online phase."""
    return "Online UEPO and Uni-O4 without offline PPO end close together: " + _alike(
        scores, online, ("uepo", "uni_o4_select"), "end"
    )


def seeds_matter_less(selection: pd.DataFrame) -> str:
    """Spread of UEPO's candidates by i within one κ > 0 against that of the means of all κ."""
    ours = selection[selection["method"] == "UEPO"]
    by_kappa = ours.groupby(["task", "seed", "kappa"], sort=False)["score"]
    between = by_kappa.mean().groupby(["task", "seed"], sort=False).std()
    spread = by_kappa.std().dropna()  # κ = 0 is one candidate
    table = pd.DataFrame({"i": spread.groupby(["task", "seed"], sort=False).mean(), "κ": between})
    means = table.groupby("task", sort=False).mean()
    told = [f"{row['i']:.1f} against {row['κ']:.1f} on {task}" for task, row in means.iterrows()]
    return (
        "The choice of a seed matters less than κ, in points of spread by i (few episodes' chance "
        f"included) against that by κ: {', '.join(told)}: {_by_task(means['i'] < means['κ'])}."
    )


def _alike(scores: pd.DataFrame, online: pd.DataFrame, pair: tuple[str, str], measure: str) -> str:
    gained = gains(scores, online, {"pair": pair})
    by_task = gained[gained["measure"] == measure].groupby("task", sort=False)
    gap, spread = by_task["gain"].mean(), by_task[["ours", "theirs"]].std().mean(axis=1)
    told = [f"{gap[task]:+.1f} on {task} (seeds ± {spread[task]:.1f})" for task in gap.index]
    return f"{', '.join(told)}: {_by_task(gap.abs() < spread)}."


def _by_task(met: pd.Series) -> str:
    """The verdict on all tasks, or where it is the other one."""
    if met.nunique() == 1:
        return _verdict(bool(met.iloc[0]))
    return f"{_verdict(False)} on {', '.join(met.index[~met])}"


def _verdict(met: bool) -> str:
    return "**as expected**" if met else "**not as expected**"
