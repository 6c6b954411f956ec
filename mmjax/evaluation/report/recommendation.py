"""Which row of a finished table to use: chosen on validation, the simplest within the noise; test only confirms it.

What a test score may do here is take a fusion back, in favour of what is simpler; it never picks one.
"""

import dataclasses
import math
from typing import Any, Literal

from mmjax.evaluation.protocol import CONTROLS, ROLES, is_fitted_on_validation
from mmjax.evaluation.report.kinds import sections
from mmjax.typing import Mapping

__all__ = ["CONTROLS", "UNTRAINED", "Choice", "choose", "role_of"]

Row = Mapping[str, Any]
UNTRAINED = ("mean of logits", "prior-corrected product")
"""Roles that combine trained single-modality models and train nothing themselves."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a section of a table says.

    Attributes:
      section: its title.
      rows: its finished rows.
      best: the fusion of all modalities with the best validation score.
      fusion: the fusion to use if any: ``best``, or the mean of logits where that is no worse within the noise.
      noise: half the width of the paired 95 % interval between the two, carried over to the number of validation items;
        None where they were not compared.
      single: the best single modality on validation; None where none was run.
      considered: number of fusions among which ``best`` is.
      left_out: rows whose validation score is no evidence, since they were fitted on validation.
      use: ``fusion``, ``single``, ``undecided`` or ``unknown`` (no single modality).
      reason: the verdict, ``validation`` where no fusion reaches the single modality there, or ``another single`` where
        the fusion is better than that one and not shown to be better than another.
    """

    section: str
    rows: tuple[Row, ...]
    best: Row
    fusion: Row
    noise: float | None
    single: Row | None
    considered: int
    left_out: tuple[str, ...]
    use: Literal["fusion", "single", "undecided", "unknown"]
    reason: str

    @property
    def row(self) -> Row:
        """The row to use; where nothing is decided, the one that validation prefers."""
        alone = self.use == "single" or self.reason == "validation"
        return self.single if alone and self.single is not None else self.fusion


def role_of(row: Row) -> str | None:
    """What a row stands for; tables of before there were roles say it by the row's name."""
    return row.get("role") or (row["name"] if row["name"] in ROLES else "single" if row["single"] else None)


def choose(summary: Mapping[str, Any]) -> list[Choice]:
    """A choice for every section that has a finished fusion of all modalities, the best on validation first."""
    sign = 1 if summary["higher_is_better"] else -1
    choices = [_section(summary, title, rows, sign) for title, rows in sections(summary["rows"])]
    return sorted((one for one in choices if one), key=lambda one: -sign * one.row["validation"])


def _section(summary: Mapping[str, Any], title: str, rows: list[dict], sign: int) -> Choice | None:
    done = tuple(row for row in rows if row["status"] == "done")
    every = set(summary.get("streams") or {name for row in summary["rows"] for name in row["streams"]})
    fused = [
        row
        for row in done
        if (set(row["streams"]) == every or not row["streams"]) and not row["single"] and role_of(row) not in CONTROLS
    ]
    fused = [row for row in fused if len(row["streams"]) != 1]
    honest = [row for row in fused if not is_fitted_on_validation(row)]
    if not honest:
        return None
    best = max(honest, key=lambda row: (sign * row["validation"], -(row.get("params") or 0)))
    single = next((row for row in done if row.get("best_single")), None)
    fusion, noise = _simplest(summary, best, done, sign)
    use, reason = _decide(fusion, single, sign)
    left_out = tuple(row["name"] for row in fused if is_fitted_on_validation(row))
    return Choice(title, done, best, fusion, noise, single, len(honest), left_out, use, reason)


def _simplest(summary: Mapping[str, Any], best: Row, done: tuple[Row, ...], sign: int) -> tuple[Row, float | None]:
    """The mean of logits in place of the best row, where neither validation nor the paired interval puts it behind."""
    late = next((row for row in done if role_of(row) == "mean of logits"), None)
    cell = best.get("gain_late_mean")
    if late is None or late is best or not cell or len(cell["seeds"]) < 3 or cell.get("lower") is None:
        return best, None
    items = summary["items"]
    noise = (cell["upper"] - cell["lower"]) / 2 * math.sqrt(items["test"] / items["validation"])
    behind = sign * (best["validation"] - late["validation"]) > noise or cell["lower"] > 0
    sure = _verdict(best) != "better" or _verdict(late) == "better"
    return (late if sure and not behind else best), noise


def _decide(fusion: Row, single: Row | None, sign: int) -> tuple[Any, str]:
    if single is None:
        return "unknown", ""
    verdict = _verdict(fusion)
    reached = sign * fusion["validation"] >= sign * single["validation"]
    if verdict in (None, "too few seeds"):
        return "undecided", "" if reached else "validation"
    if not reached:
        return "single", "validation"
    if verdict != "better" and _beats(fusion, single):
        return "undecided", "another single"
    return ("fusion" if verdict == "better" else "single"), verdict


def _beats(fusion: Row, single: Row) -> bool:
    """Whether a fusion that fails against some single modality is ahead of the one that validation chose."""
    cell: Mapping[str, Any] | None = (fusion.get("gains") or {}).get(single["name"])
    if cell is None or fusion["gain"]["over"] == single["name"]:
        return False
    return cell["lower"] > 0 and cell["p"] < 0.05


def _verdict(row: Row) -> str | None:
    return (row.get("gain") or {}).get("verdict")
