"""The guided sets that notebook 04 judges on robots, and their runs: returns, trajectories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from uepo_lib import executed
from uepo_lib.divergence import EtaSchedule, Guidance, GuidanceConfig
from uepo_lib.evaluation import Evaluation
from uepo_lib.executed import Executed
from uepo_lib.stages import Product, Study
from uepo_lib.subpolicies import SubPolicies, equal_power_controls

TASKS = ("pen-expert", "hopper-medium")
"""Little action noise, and much."""


@dataclass(frozen=True)
class Setting:
    """How a set is guided: reverse steps, schedule of η over them, η in action units."""

    steps: int
    schedule: EtaSchedule
    eta: float

    def __str__(self) -> str:
        return f"{self.steps} steps, {self.schedule}, η = {self.eta:g}"


SHIPPED = Setting(5, "linear", 0.5)
"""What ``GuidanceConfig`` and ``DiffusionConfig`` have by default."""
ETAS = (0.16, 0.5, 1.6)
"""A decade around the standard deviation of logged actions."""
STRONG, LONG = Setting(5, "constant", ETAS[-1]), Setting(20, "constant", ETAS[-1])
SETTINGS = (
    SHIPPED,
    *(Setting(steps, "constant", eta) for steps in (STRONG.steps, LONG.steps) for eta in ETAS),
)
PLAYED = (
    (SHIPPED, "unguided"), (SHIPPED, "guided"), (STRONG, "guided"), (STRONG, "ungated"),
    (STRONG, "final"), (LONG, "unguided"), (LONG, "guided"),
)  # fmt: skip
"""What is played in the environment; a guided set pays n plans for one, so not everything is."""
FEWER, FEWER_TOLD = 2, "half the episodes"
"""The long chain plays one in ``FEWER`` of the episodes, and how figures say so."""
FINAL = {"control": "final", "revision": 2}
"""What names the runs of white noise on the final actions; 2: equal in power once it is clipped."""


class GuidedRobot:
    """One study's diffusion policy, at κ = 1, guided in several ways."""

    def __init__(self, study: Study) -> None:
        self.study, self.model = study, study.diffusion_policy()

    def unguided(self, steps: int) -> Product[SubPolicies]:
        """The set that a setting guides."""
        return self.study.sub_policies(self.model, 1.0, num_denoising_steps=self._steps(steps))

    def guided(self, setting: Setting) -> Product[SubPolicies]:
        """With τ, the median of the unguided set's nearest-neighbour div, and D's floor."""
        return self.study.sub_policies(
            self.model, 1.0, num_denoising_steps=self._steps(setting.steps), guided=True,
            eta=setting.eta, eta_schedule=setting.schedule,
        )  # fmt: skip

    def sets(self, setting: Setting) -> dict[str, Product[SubPolicies]]:
        """The unguided set, the guided one, and its controls of equal power on 256 states of D."""
        guided = self.guided(setting)
        past = self.study.starts(256, "calibration")
        both = guided.derive(lambda policies: equal_power_controls(policies, past), {})
        return {
            "unguided": self.unguided(setting.steps),
            "guided": guided,
            "ungated": both.derive(lambda controls: controls["ungated"], {"control": "ungated"}),
            "final": both.derive(lambda controls: controls["final"], FINAL),
        }

    @cached_property
    def rules(self) -> dict[int, Guidance]:
        """The calibrated guidance of each chain length, to be varied."""
        found = {}
        for setting in (STRONG, LONG):
            guidance = self.guided(setting).value.guidance
            assert guidance is not None
            found[setting.steps] = guidance
        return found

    def rule(self, steps: int) -> GuidanceConfig:
        """τ and the cosine's floor of a chain length."""
        return self.rules[steps].config

    def at(self, setting: Setting) -> SubPolicies:
        """The guided set of a setting, without calibrating anew."""
        guidance = self.rules[setting.steps]
        config = replace(guidance.config, eta=setting.eta, eta_schedule=setting.schedule)
        plain = self.unguided(setting.steps).value
        return plain.with_guidance(replace(guidance, config=config))

    def played(self, setting: Setting, name: str) -> Product[Evaluation]:
        """True returns of one set, in the profile's shorter evaluation; one in :data:`FEWER` of
        its episodes for the long chain."""
        episodes = self.study.budget.curve_episodes
        counts = {SHIPPED.steps: episodes, LONG.steps: max(1, episodes // FEWER)}
        return self.study.evaluate(self.sets(setting)[name], counts[setting.steps])

    def returns(self) -> dict[tuple[Setting, str], Product[Evaluation]]:
        """True returns of :data:`PLAYED`."""
        return {(setting, name): self.played(setting, name) for setting, name in PLAYED}

    def by_steps(self) -> dict[int, Product[Evaluation]]:
        """Those of the unguided set, by number of denoising steps."""
        return {s.steps: self.played(s, "unguided") for s in (SHIPPED, LONG)}

    def trajectories(self, horizon: int = 16) -> dict[str, Product[Executed]]:
        """What the unguided set, the strongly guided one and jittered actions do from logged
        states."""
        sets, count = self.sets(STRONG), self.study.budget.amq_starts // 2
        return {
            name: executed.from_data(self.study, sets[name], count, horizon)
            for name in ("unguided", "guided", "final")
        }

    def _steps(self, steps: int) -> int | None:
        """None for the model's own number of steps, which an identity then does not repeat."""
        return None if steps == self.study.config("diffusion").num_denoising_steps else steps
