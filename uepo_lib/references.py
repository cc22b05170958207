"""Published normalised scores, to stand beside ours: ``published.csv``, a row a D4RL dataset.

Columns marked † are the paper's table (arXiv 2511.10087), read from public notes of it and not from
its PDF; where a digit was garbled both readings are kept. CORL's (arXiv 2210.07105) are a second
measurement of the same methods, the two "online" ones after a million online steps.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

PUBLISHED = Path(__file__).parent / "published.csv"
MARKS = "†: as the paper's table prints them, read from public notes of it, not from its PDF."


def published() -> pd.DataFrame:
    """Scores as text, "" where none was published; indexed by D4RL's dataset, a column a method."""
    return pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False).set_index("dataset")


def beside(cards: pd.DataFrame) -> pd.DataFrame:
    """The datasets that stand for a row of the paper: theirs and ours, a column a dataset.

    ``cards`` as :func:`uepo_lib.cards.cards` makes them. Ours is the mean score of a dataset's
    episodes, theirs of a policy learnt from D4RL's dataset of that name.
    """
    ours = cards[cards.paper_row.notna()].set_index("paper_row")
    mean = ours.score.map(lambda score: "–" if pd.isna(score) else f"{score:.1f}")
    theirs = published().reindex(ours.index).fillna("").replace("", "–")
    theirs = theirs.loc[:, (theirs != "–").any()]
    table = pd.concat([mean.rename("our dataset: its episodes"), theirs], axis=1)
    table.insert(0, "task here", ours.task)
    return table.T.rename_axis(columns=None)


def lowest(row: str) -> float:
    """The lowest score published for a row of the paper, garbled ones left out; NaN if none."""
    scores = published().loc[row].str.partition(" ±")[0]
    return float(pd.to_numeric(scores, errors="coerce").min())
