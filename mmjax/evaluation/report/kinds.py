"""What kind of row a row is, its section and the best rows of one: the same in every picture and on the page."""

import collections
from collections.abc import Sequence
from typing import Any

from mmjax.evaluation.protocol import CONTROLS
from mmjax.typing import Mapping

__all__ = ["KINDS", "best_rows", "kind_of", "sections", "usual_seeds"]

KINDS = {
    "baseline": "one modality",
    "fusion": "several modalities",
    "control": "tests where a gain comes from",
}


def kind_of(row: Mapping[str, Any]) -> str:
    """``baseline``, ``fusion`` or ``control``: by its role and the number of its modalities."""
    if row.get("role") in CONTROLS:
        return "control"
    return "baseline" if len(row.get("streams") or ()) == 1 or row.get("single") else "fusion"


def best_rows(rows: Sequence[Mapping[str, Any]], higher_is_better: bool = True) -> set[str]:
    """Names of the rows with the best mean on test, several where they are equal; a control is never one of them."""
    means = {row["name"]: row["mean"] for row in rows if row["status"] == "done" and kind_of(row) != "control"}
    if len(means) < 2:
        return set()
    best = (max if higher_is_better else min)(means.values())
    return {name for name, mean in means.items() if mean == best}


def sections(rows: Sequence[dict], untitled: str = "Methods") -> list[tuple[str, list[dict]]]:
    """Rows by section, both in the order of the table; ``untitled`` stands for a section without a title."""
    by_section: dict[str, list[dict]] = {}
    for row in rows:
        by_section.setdefault(row["section"], []).append(row)
    return [(title or untitled, some) for title, some in by_section.items()]


def usual_seeds(summary: Mapping[str, Any]) -> int:
    """The number of seeds that most finished rows have."""
    counts = collections.Counter(len(row["seeds"]) for row in summary["rows"] if row["status"] == "done")
    return max(counts, key=lambda n: (counts[n], n)) if counts else len(summary["seeds"])
