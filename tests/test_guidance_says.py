"""What notebook 04 says of its tables follows from them."""

from __future__ import annotations

import pandas as pd
import pytest

from uepo_lib.figures import guidance_says
from uepo_lib.figures.survival import AFTER


def test_the_trained_network_is_set_beside_the_exact_one() -> None:
    text = guidance_says.trained_says(
        {"exact": 0.12, "trained": 0.08}, {"exact": 0.4, "trained": 0.1}
    )
    assert "less by a factor of 1.5" in text
    assert "a factor of 4.0" in text
    text = guidance_says.trained_says(
        {"exact": 0.1, "trained": 0.2}, {"exact": 0.4, "trained": 0.1}
    )
    assert "more by a factor of 2.0" in text


@pytest.mark.parametrize(
    ("guided", "said", "ahead"),
    [(0.64, "24% unguided, 64% guided;", "ungated noise and white noise on finished actions"),
     (0.95, "95% guided;", "neither"),
     (0.2, "24% unguided, 20% guided;", "ungated noise and white"),
     (0.8, "80% guided;", "the gate: white noise on finished actions.")],
)  # fmt: skip
def test_shares_name_what_is_ahead_of_the_gate(guided: float, said: str, ahead: str) -> None:
    share = {"unguided": 0.24, "guided": guided, "ungated": 0.69, "final": 0.91}
    rows = [("pen", 5, schedule, eta, name, value if (schedule, eta) == ("constant", 1.6) else 0.0)
            for schedule in ("constant", "linear") for eta in (0.5, 1.6)
            for name, value in share.items()]  # fmt: skip
    columns = ["task", "steps", "schedule", "eta", "set", "call_share"]
    text = guidance_says.shares_say(pd.DataFrame(rows, columns=columns), 1.6)
    assert text.startswith("- pen, 5 steps: 24% unguided")
    assert said in text
    assert ahead in text


def test_the_closed_form_is_judged_before_the_last_step() -> None:
    rows = [("pen", 4, 1, 1e-4, 1e-3), ("pen", 4, 2, 0.1, 0.1), ("pen", 4, 3, 0.1, 0.5),
            ("pen", 4, 4, 1.0, 9.0)]  # fmt: skip
    kept = pd.DataFrame(rows, columns=["name", "steps", "step", "along", "closed_form"])
    assert guidance_says.closed_form_says(kept).endswith("pen, 4 steps: 1.0 to 5.0.")


def test_jitter_inside_the_modes_is_named_as_such() -> None:
    rows = [(0.1, "unguided", 0.1, 2.8, 1.0), (0.1, "guided", 0.4, 2.9, 1.0),
            (0.1, "final", 0.9, 2.85, 0.97), (1.0, "unguided", 0.1, 2.8, 1.0),
            (1.0, "guided", 0.9, 3.4, 1.0), (1.0, "final", 1.0, 2.8, 0.2)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["eta", "set", "call_share", "modes", "in_support"])
    text = guidance_says.jitter_says(table)
    assert text.startswith("At η = 0.1 white noise on finished actions reaches τ in 90% of calls")
    assert "no new door: 2.85, unguided 2.80, guided 2.90" in text
    assert "**τ alone does not tell jitter from a door.**" in text
    assert text.endswith("At η = 1 it leaves the data: at most 20% of the plans are within a mode.")
    doors = table.assign(modes=table["modes"].where(table["set"] != "final", 3.5))
    assert "It finds new doors: 3.50" in guidance_says.jitter_says(doors)
    assert "jitter" not in guidance_says.jitter_says(doors)
    ahead = table.assign(call_share=table["call_share"].where(table["set"] != "guided", 1.0))
    assert guidance_says.jitter_says(ahead).startswith("At η = 1 it leaves")


def test_the_chain_is_told_beside_its_end() -> None:
    shares = {"unguided": (0.8, 0.8, 0.4), "guided, before δ": (0.8, 0.9, 0.5), AFTER: (1, 0.7, 0)}
    rows = [("pen, 3 steps", step + 1, name, share)
            for name, of in shares.items() for step, share in enumerate(of)]  # fmt: skip
    traces = pd.DataFrame(rows, columns=["name", "step", "estimate", "call_share"])
    assert guidance_says.trace_says(traces) == (
        "- pen, 3 steps: unguided 80% along the chain and 40% in the actions; guided, once δ has "
        "been added, 70% to 100%, least after step 2, and 50% in the actions."
    )
