"""Rules of the protocol: the rows that a table needs before a gain in it can be trusted, and which ones it lacks."""

from collections.abc import Sequence
from typing import Any

from mmjax.typing import Mapping

__all__ = ["CONTROLS", "ROLES", "VALIDATION", "best_fusion", "best_network", "is_fitted_on_validation", "missing_parts"]

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
"""Roles of rows. All but the controls are baselines; a table needs a row of every role, ``linear`` only for sequences.
"""

CONTROLS = ("shuffled control", "ensemble control")
"""Roles that test the source of a gain; these rows are no methods."""

VALIDATION = ("held out", "cross-fitted", "fitted")
"""Kinds of validation scores of a row: of unseen items, each by a fit on other items, or of items it was fitted on."""


def is_fitted_on_validation(row: Mapping[str, Any]) -> bool:
    """Whether a row of a configuration or a summary was fitted on its validation items.

    Older tables have no field for it: there stacking was, which its name tells.
    """
    if scores := row.get("validation_scores"):
        return scores == "fitted"
    return row["kind"] == "fit" and row["name"].startswith("stacking")


def missing_parts(
    rows: Sequence[Mapping[str, Any]],
    streams: Sequence[str],
    majority: float | None,
    *,
    sequences: bool = False,
    higher_is_better: bool = True,
    alone: bool = True,
) -> list[str]:
    """What a table lacks, in words; empty if it conforms.

    Args:
      rows: of the summary, with ``role``, ``single``, ``streams``, ``status`` and ``best_single``.
      streams: the modalities of the data.
      majority: the share of the most frequent class; None without classes.
      sequences: whether an example has several items of some modality; then a linear row is required.
      higher_is_better: of the validation scores, which choose the best fusion.
      alone: whether a single modality can be asked. Where it cannot (retrieval), nothing is asked for that begins with
        one: a network needs the shuffled control, whose pairs are of strangers, and no more.
    """
    done = [row for row in rows if row["status"] == "done"]
    if not alone:
        return _without_strangers(done, higher_is_better)
    missing = [
        f"{name} alone" for name in streams if not any(row["single"] and row["streams"] == [name] for row in done)
    ]
    if len(streams) < 2:
        return missing
    classes = majority is not None
    decision = ("mean of logits", "prior-corrected product")
    optional = ("single", "matched", *(() if classes else decision), *(() if sequences else ("linear",)))
    wanted = [role for role in ROLES if role not in optional]
    missing += [f"{role} ({ROLES[role]})" for role in wanted if not any(row["role"] == role for row in done)]
    best = [row["streams"] for row in done if row["best_single"]]
    if not any(row["role"] == "matched" and row["streams"] in best for row in done):
        missing.append(f"matched ({ROLES['matched']})")
    if fusion := _without_control(done, higher_is_better):
        missing.append(f"shuffled control of {fusion!r}, the best fusion on validation")
    return missing


def best_fusion(rows: Sequence[Mapping[str, Any]], *, higher_is_better: bool = True) -> Mapping[str, Any] | None:
    """The network besides the concatenation that gets a shuffled control: the best on validation of its section and
    modalities; None without one.

    Args:
      rows: of the summary.
    """
    done = [row for row in rows if row["status"] == "done" and row.get("kind") == "model"]
    plain = next((row for row in done if row["role"] == "concatenation"), None)
    if plain is None:
        return None
    sign = 1 if higher_is_better else -1
    fused = [
        row
        for row in done
        if row is not plain
        and row["role"] not in CONTROLS
        and row.get("section") == plain.get("section")
        and set(row["streams"]) == set(plain["streams"])
        and row.get("validation") is not None
    ]
    return max(fused, key=lambda row: sign * row["validation"], default=None)


def best_network(rows: Sequence[Mapping[str, Any]], *, higher_is_better: bool = True) -> Mapping[str, Any] | None:
    """The network that gets the shuffled control where no modality can be asked alone: the best on validation of all;
    None without one.

    Args:
      rows: of the summary.
    """
    trained = [
        row
        for row in rows
        if row["status"] == "done"
        and row.get("kind") == "model"
        and row["role"] not in CONTROLS
        and row.get("validation") is not None
    ]
    sign = 1 if higher_is_better else -1
    return max(trained, key=lambda row: sign * row["validation"], default=None)


def _without_strangers(rows: Sequence[Mapping[str, Any]], higher_is_better: bool) -> list[str]:
    best = best_network(rows, higher_is_better=higher_is_better)
    if best is None or any(r["role"] == "shuffled control" and r["name"].startswith(f"{best['name']}: ") for r in rows):
        return []
    return [f"shuffled control of {best['name']!r}, the best network on validation"]


def _without_control(rows: Sequence[Mapping[str, Any]], higher_is_better: bool) -> str | None:
    """The name of the best fusion if its shuffled control is missing.

    Controls are named after their rows; if none is, as in custom rows, the role is enough.
    """
    fusion = best_fusion(rows, higher_is_better=higher_is_better)
    if fusion is None:
        return None
    controls = [row["name"] for row in rows if row["role"] == "shuffled control"]
    names = [row["name"] for row in rows if row["role"] not in CONTROLS]
    named = any(control.startswith(f"{name}: ") for control in controls for name in names)
    if not named or any(control.startswith(f"{fusion['name']}: ") for control in controls):
        return None
    return fusion["name"]
