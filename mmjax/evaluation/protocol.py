"""The rules of the protocol: what a table must hold before a gain in it may be believed, and what one lacks."""

from collections.abc import Sequence
from typing import Any

from mmjax.typing import Mapping

__all__ = ["CONTROLS", "ROLES", "VALIDATION", "is_fitted_on_validation", "missing_parts"]

ROLES = {
    "single": "a modality alone",
    "matched": "a modality alone, with as many parameters as the concatenation",
    "mean of logits": "mean of the single modalities' logits, untrained",
    "prior-corrected product": "product of the single modalities' probabilities over the prior, untrained",
    "linear": "a linear model of means, deviations and quantiles of the items",
    "concatenation": "concatenation and an MLP",
    "joint transformer": "a transformer over modality tokens",
    "shuffled control": "the same method trained with the other modalities shuffled among the examples",
    "ensemble control": "as many models of the best single modality as there are modalities",
}
"""What a row stands for in the protocol. All but the controls are baselines; every role must be filled, ``linear`` in a
table of sequences."""

CONTROLS = ("shuffled control", "ensemble control")
"""Roles that test what a gain comes from; no method is among them."""

VALIDATION = ("held out", "cross-fitted", "fitted")
"""What the validation scores of a row may be: of items it never saw, each by a fit on other items, or of its own."""


def is_fitted_on_validation(row: Mapping[str, Any]) -> bool:
    """Whether the validation scores of a row of a configuration or a summary are those of items it was fitted on.

    Tables of before there was a field for it have stacking fitted so, and it is told by its name.
    """
    if scores := row.get("validation_scores"):
        return scores == "fitted"
    return row["kind"] == "fit" and row["name"].startswith("stacking")


def missing_parts(
    rows: Sequence[Mapping[str, Any]], streams: Sequence[str], majority: float | None, *, sequences: bool = False
) -> list[str]:
    """What a table lacks, in words; empty = it conforms.

    Args:
      rows: of the summary, with ``role``, ``single``, ``streams``, ``status`` and ``best_single``.
      streams: the modalities of the data.
      majority: the share of the most frequent class; None where there are no classes.
      sequences: whether an example holds several items of some modality; then a linear row is asked for.
    """
    done = [row for row in rows if row["status"] == "done"]
    missing = [
        f"{name} alone" for name in streams if not any(row["single"] and row["streams"] == [name] for row in done)
    ]
    if len(streams) < 2:
        return missing
    classes = majority is not None
    decision = ("mean of logits", "prior-corrected product")
    spared = ("single", "matched", *(() if classes else decision), *(() if sequences else ("linear",)))
    wanted = [role for role in ROLES if role not in spared]
    missing += [f"{role} ({ROLES[role]})" for role in wanted if not any(row["role"] == role for row in done)]
    best = [row["streams"] for row in done if row["best_single"]]
    if not any(row["role"] == "matched" and row["streams"] in best for row in done):
        missing.append(f"matched ({ROLES['matched']})")
    return missing
