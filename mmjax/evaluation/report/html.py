"""The report as one HTML page: no network, nothing outside the file; whatever a name contains is shown as text."""

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import Any

from mmjax.evaluation.report.cells import NONE
from mmjax.evaluation.report.columns import Column
from mmjax.evaluation.report.frame import Frame
from mmjax.evaluation.report.kinds import KINDS
from mmjax.evaluation.report.templating import TEMPLATES, load_template
from mmjax.typing import Mapping

__all__ = ["format_html"]

SIGNS = {"better": "▲", "worse": "▼", "equivalent": "≈", "inconclusive": "?", "too few seeds": "…", "reproduced": "✓",
         "consistent (wide)": "≈", "close": "≈", "not reproduced": "✗", "cannot run": "–"}  # fmt: skip
DESCENDING = ("paper", "ours", "interval", "selected", "gain", "over_each", "gain_late_mean", "gain_ensemble", "emap",
              "kept_missing", "kept_noise", "alc")  # fmt: skip
SHARED = ("seed", "epoch", "test_selected", "metrics", "validation_metrics")


def format_html(frame: Frame, records: Sequence[Mapping[str, Any]], plots: Mapping[str, bytes]) -> str:
    """The page; the same text for the same arguments.

    Args:
      records: of all rows, one per seed; those of seeds and rows that the table does not have are left out.
      plots: PNG files by title, as ``write_plots`` returns them.
    """
    summary, shown = frame.summary, [*frame.columns, *frame.clocks]
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return load_template("report.html", autoescape=True).render(
        frame=frame,
        summary=summary,
        columns=shown,
        broken=[row["name"] for row in summary["rows"] if row.get("status") == "done" and not row["conforming"]],
        figures=_figures(summary, plots),
        data=_finite(_data(summary, records, shown)),
        style=style,
        script=script,
        digests={"style": _digest(style), "script": _digest(script)},
        none_text=NONE,
        kinds=KINDS,
        signs=SIGNS,
        descending=DESCENDING,
    )


def _figures(summary: Mapping[str, Any], plots: Mapping[str, bytes]) -> list[dict[str, str]]:
    """The plots with their words; those of several sections share a caption, which the first has."""
    from mmjax.evaluation.report.plots import alternative, caption

    figures, explained = [], set()
    for title, png in plots.items():
        text = caption(title)
        figures.append(
            {
                "title": title,
                "caption": "Read like the one before." if text in explained else text,
                "alternative": alternative(title, summary),
                "png": base64.b64encode(png).decode(),
            }
        )
        explained |= {text} - {""}
    return figures


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]], shown: Sequence[Column]) -> dict[str, Any]:
    """What the page's script reads."""
    wanted = {row["name"]: set(row["seeds"]) for row in summary["rows"] if row["status"] == "done"}
    by_row: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["seed"] in wanted.get(record["row"], ()):
            by_row.setdefault(record["row"], []).append(record)
    return {
        "columns": {
            c.key: {"title": c.title, "meaning": c.meaning.replace("`", ""), "fields": c.fields} for c in shown
        },
        "rows": summary["rows"],
        "records": {name: _compact(some) for name, some in by_row.items()},
    }


def _compact(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row's records as a table of what differs between seeds, beside what they share."""
    flat = [_flat(record) for record in records]
    names = list(dict.fromkeys(name for record in flat for name in record))
    always = [name for name in names if name.split(".")[0] in SHARED]
    varies = [name for name in names if name not in always and any(r.get(name) != flat[0].get(name) for r in flat)]
    per_seed = sorted(always, key=lambda name: SHARED.index(name.split(".")[0])) + varies
    shared = {name: flat[0][name] for name in names if name not in per_seed and name in flat[0]}
    return {"names": per_seed, "seeds": [[record.get(name) for name in per_seed] for record in flat], "shared": shared}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{name}.{key}" if name else key)
    return flat


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: null."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
