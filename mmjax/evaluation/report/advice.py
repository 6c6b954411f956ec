"""A finished table in plain words: which fusion to use, what it gains and costs, where it breaks, how sure that is.

The sentences stand in ``templates/advice.txt``.
"""

import re
from collections.abc import Sequence
from typing import Any

from mmjax.errors import UsageError
from mmjax.evaluation.report.cells import Unit, count, decimal, value
from mmjax.evaluation.report.kinds import usual_seeds
from mmjax.evaluation.report.recommendation import CONTROLS, UNTRAINED, Choice, choose, role_of
from mmjax.evaluation.report.templating import load_template
from mmjax.typing import Mapping

__all__ = ["advise"]

Row = Mapping[str, Any]


def advise(summary: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> str:
    """Advice with its evidence, every number with the row and field of ``table.json`` that it comes from.

    The row is chosen on validation alone. The test of that one row against the best single modality says whether fusion
    is to be used at all; no test score picks a row.

    Args:
      summary: what ``table.json`` holds.
      timing: what ``timing.json`` holds; None = the time of a step is not known.

    Raises:
      UsageError: tables of several folds pooled, or no finished fusion of all modalities.
    """
    if "higher_is_better" not in summary or "items" not in summary:
        raise UsageError("advice needs the table.json of one table; of pooled folds take the folder of one fold")
    choices = choose(summary)
    if not choices:
        raise UsageError(f"table {summary['table']!r} has no finished row that fuses all modalities: nothing to advise")
    choice, *others = choices
    robustness = choice.row.get("robustness") or {}
    interaction = choice.fusion.get("interaction") or {}
    shapley = interaction.get("shapley") or {}
    text = load_template("advice.txt").render(
        summary=summary,
        choice=choice,
        others=others,
        fusion=choice.fusion,
        best=choice.best,
        single=choice.single,
        row=choice.row,
        role=role_of(choice.fusion),
        untrained=role_of(choice.fusion) in UNTRAINED,
        control=_find_control(choice),
        costs=_costs(choice, timing or {}),
        robustness=robustness,
        worst=(robustness.get("worst_drop") or {}).get("value"),
        breaks=_breaks(summary, choice),
        pattern=_worst_pattern(choice.row),
        calibration=choice.row.get("calibration"),
        emap=interaction.get("emap"),
        shares=[
            f"{name} {decimal(100 * one['share'], 0)} %"
            for name, one in shapley.items()
            if one.get("share") is not None
        ],
        seeds=usual_seeds(summary),
        **_simple_models(summary, choice),
        **_words(summary),
    )
    return re.sub(r"\n+(?=[ ,;.])", "", text)


def _words(summary: Mapping[str, Any]) -> dict[str, Any]:
    """How the template says numbers: in the units of the table."""
    unit = Unit.of(summary)

    def show(number: float | None, sign: bool = False) -> str:
        return value(summary, number, sign=sign)

    def score(number: float) -> str:
        return show(number) + (" %" if unit.percent else f" {unit.name}")

    def signed(number: float) -> str:
        return show(number, sign=True) + unit.points + " (+ is better)" * (not unit.percent)

    def between(ends: Sequence[float | None] | None) -> str:
        if ends is None or None in ends:
            return ""
        return " (95 % interval " + " to ".join(show(end, sign=True) for end in ends) + ")"

    def difference(cell: Mapping[str, Any]) -> str:
        """A gain with its interval, where there are seeds enough for one."""
        ends = (cell.get("lower"), cell.get("upper")) if len(cell["seeds"]) > 2 else None
        return signed(cell["mean"]) + between(ends)

    if unit.percent:
        metric = f"{unit.name} in percent"
    else:
        metric = unit.name if unit.higher_is_better else f"{unit.name}, lower is better,"
    return {
        "unit": unit,
        "metric": metric,
        "score": score,
        "size": lambda number: show(number) + unit.points,
        "signed": signed,
        "between": between,
        "difference": difference,
        "at": lambda row, field: f"{score(row[field])} [{row['name']}: {field}]",
        "points": lambda share: decimal(100 * share, 1),
        "thousands": "{:,}".format,
        "alone": _alone,
        "kept": _kept,
        "gain_of": lambda row: row.get("gain") or {},
    }


def _alone(choice: Choice) -> str:
    """The best single modality, and its row where that is called otherwise."""
    if choice.single is None:
        return "no single modality"
    name, stream = choice.single["name"], choice.single["streams"][0]
    return f"{stream.upper()} alone" + ("" if name == stream else f' (row "{name}")')


def _simple_models(summary: Mapping[str, Any], choice: Choice) -> dict[str, Sequence[Any]]:
    """Where a simple model reaches what the networks do: a linear model of all modalities, a constant, or a fit of one
    modality; each with the best network, an empty list where none does."""
    sign = 1 if summary["higher_is_better"] else -1

    def best(rows: Sequence[Row]) -> Row | None:
        return max(rows, key=lambda row: sign * row["validation"], default=None)

    trained = [row for row in choice.rows if role_of(row) not in (*UNTRAINED, *CONTROLS)]
    networks = [row for row in trained if row["kind"] == "model"]
    linear, network = best([row for row in choice.rows if role_of(row) == "linear"]), best(networks)
    behind = linear and network and sign * network["validation"] <= sign * linear["validation"]
    constants = [one for one in summary.get("known", ()) if one["name"].endswith(" of train")]  # constants, of scores
    constant = max(constants, key=lambda one: sign * one["value"], default=None)
    beaten = not networks or not constant or any(sign * row["mean"] > sign * constant["value"] for row in networks)
    pairs = []
    for name in sorted({row["streams"][0] for row in trained if row["single"]}):
        alone = [row for row in trained if row["single"] and row["streams"] == [name]]
        fitted, one = best([row for row in alone if row["kind"] == "fit"]), best([r for r in alone if r in networks])
        if fitted and one and sign * one["validation"] < sign * fitted["validation"]:
            pairs.append((fitted, one))
    return {"linear": [(linear, network)] if behind else [], "constant": [] if beaten else [constant], "behind": pairs}


def _find_control(choice: Choice) -> Row | None:
    """The shuffled control of the fusion; of the concatenation where it has none of its own."""
    controls = [row for row in choice.rows if role_of(row) == "shuffled control" and row.get("gain")]
    plain = next((row["name"] for row in choice.rows if role_of(row) == "concatenation"), None)
    for name in (choice.fusion["name"], plain):
        for row in controls:
            if name is not None and row["name"].startswith(f"{name}: "):
                return row
    return None


def _kept(choice: Choice) -> str:
    """What of the gain the control keeps: ``all``, ``part``, ``none``, or ``unknown`` where that cannot be said."""
    control, gain = _find_control(choice), choice.fusion.get("gain")
    if role_of(choice.fusion) in UNTRAINED or control is None or not gain:
        return "unknown"
    theirs = control["gain"]
    gain = (choice.fusion.get("gains") or {}).get(theirs["over"]) or gain  # over the modality that the control keeps
    if len(theirs["seeds"]) < 3 or theirs.get("lower") is None or gain["mean"] <= 0:
        return "unknown"
    if theirs["lower"] > 0:
        return "all" if theirs["upper"] >= gain["mean"] else "part"
    return "none" if theirs["upper"] < gain["mean"] else "unknown"


def _costs(choice: Choice, timing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the fusion and the single modality; an untrained fusion costs what its single modalities do."""
    units = {"params": "parameters", "flops": "FLOPs for the forward pass of an example, by formula"}
    costs = []
    for row in [choice.fusion] + ([choice.single] if choice.single is not None else []):
        members = row.get("members") or [one["name"] for one in choice.rows if one["single"]]  # of logits: not named
        parts = [one for one in choice.rows if one["name"] in members] if role_of(row) in UNTRAINED else [row]
        counts = []
        for field, unit in units.items():
            numbers: list[Any] = [(one.get("cost") or {}).get(field, one.get(field)) for one in parts]
            counts.append(f"{count(sum(numbers))} {unit}" if numbers and all(numbers) else f"{unit}: not measured")
        if fused := (row.get("cost") or {}).get("params_fusion"):
            counts.insert(1, f"{count(fused)} of them in the fusion")
        costs.append(
            {
                "name": row["name"],
                "parts": [one["name"] for one in parts],
                "combines": parts != [row],
                "counts": counts,
                "step": (timing.get(row["name"]) or {}).get("step_ms"),
            }
        )
    return costs


def _breaks(summary: Mapping[str, Any], choice: Choice) -> list[dict[str, Any]]:
    """What the row scores without each modality and with full noise on it, beside the best single one that remains."""
    row, cells = choice.row, choice.row.get("robustness") or {}
    sign = 1 if summary["higher_is_better"] else -1  # robustness is measured in scores: minus the error
    breaks = []
    for kind, words in (("missing", "without {}"), ("noise", "with full noise on {}")):
        for name, curve in sorted((cells.get(kind) or {}).items()):
            if name == "all":
                continue
            score = sign * curve["mean"][-1]
            scale = f" ({curve['scale']})" if kind == "noise" and curve.get("scale") else ""
            rest = _best_remaining(choice, name, sign) if len(row["streams"]) > 1 else None
            listed = kind == "noise" and name in (cells.get("harmful") or ())
            harmful = rest is not None and (listed or sign * (score - rest["mean"]) < 0)
            how = words.format(name) + scale
            breaks.append(
                {
                    "modality": name,
                    "how": f"Harmful fusion {how}" if harmful else how[0].upper() + how[1:],
                    "field": f"{kind}.{name}",
                    "score": score,
                    "rest": rest,
                    "harmful": harmful,
                }
            )
    return breaks


def _best_remaining(choice: Choice, lost: str, sign: int) -> Row | None:
    rest = [row for row in choice.rows if row["single"] and row["streams"] != [lost]]
    rest = [row for row in rest if set(row["streams"]) <= set(choice.fusion["streams"])]
    return max(rest, key=lambda row: sign * row["validation"], default=None)


def _worst_pattern(row: Row) -> list[tuple[str, float]]:
    """The pattern of presence with the largest calibration error, where several are known."""
    patterns = ((row.get("robustness") or {}).get("patterns") or {}).items() if len(row["streams"]) > 1 else ()
    errors = {name: one["ece"] for name, one in patterns if one.get("ece") is not None}
    return [max(sorted(errors.items()), key=lambda item: item[1])] if len(errors) > 1 else []
