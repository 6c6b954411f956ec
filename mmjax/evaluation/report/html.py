"""The report as one HTML page: no network, nothing outside the file; whatever a name contains is shown as text."""

import base64
import hashlib
import json
import math
import pathlib
from collections.abc import Sequence
from html import escape
from typing import Any

from mmjax.evaluation.report import columns as table
from mmjax.evaluation.report.cells import NONE, Cell, absence, paper
from mmjax.evaluation.report.kinds import KINDS, best_rows, kind_of
from mmjax.typing import Mapping

__all__ = ["format_html"]

TEMPLATES = pathlib.Path(__file__).with_name("templates")
SIGNS = {"better": "▲", "worse": "▼", "equivalent": "≈", "inconclusive": "?", "too few seeds": "…", "reproduced": "✓",
         "consistent (wide)": "≈",
         "close": "≈", "not reproduced": "✗", "cannot run": "–"}  # fmt: skip
DESCENDING = ("paper", "ours", "interval", "selected", "gain", "over_each", "gain_late_mean", "gain_ensemble", "emap",
              "kept_missing", "kept_noise", "alc")  # fmt: skip
SHARED = ("seed", "epoch", "test_selected", "metrics", "validation_metrics")


def format_html(
    summary: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    plots: Mapping[str, bytes],
    timing: Mapping[str, Any] | None = None,
) -> str:
    """The page; the same text for the same arguments.

    Args:
      summary: what ``table.json`` holds.
      records: of all rows, one per seed; those of seeds and rows that the summary does not have are left out.
      plots: PNG files by title, as ``write_plots`` returns them.
      timing: what ``timing.json`` holds; None leaves out what a clock measured.
    """
    from mmjax.evaluation.report.plots import alternative, caption

    shown = table.columns(summary, timing)
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    # Only this style and this script may run, and nothing may be loaded: the browser itself keeps to it.
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = escape(summary["title"])
    figures, explained = [], set()
    for name, png in plots.items():
        said = caption(name)
        text = "Read like the one before." if said in explained else said
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        figures.append(
            f'<figure><img alt="{escape(alternative(name, summary))}" src="{source}">'
            f"<figcaption><strong>{escape(name)}</strong>{escape(text)}</figcaption></figure>"
        )
        explained |= {said} - {""}
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        f"<header><div><h1>{title}</h1>",
        f'<p class="lead">Table <code>{escape(summary["table"])}</code>, standard {escape(summary["standard"])}</p>',
        '</div><button type="button" class="button theme" id="theme">Theme: auto</button></header>',
        "<main>",
        _banner(summary),
        *(f"<p>{escape(text)}</p>" for text in [summary["note"], *table.facts(summary)] if text),
        _tools(shown),
        _table(summary, shown),
        _notes(summary),
        f'<h2>Plots</h2><div class="plots">{"".join(figures)}</div>' if figures else "",
        f'<h2>What the columns say</h2><dl class="legend">{_legend(summary, shown)}</dl>',
        "</main>",
        f"<footer>{_footer(summary)}</footer>",
        '<dialog id="record" aria-labelledby="record-title"><div class="bar"><h2 id="record-title"></h2>'
        '<button type="button" class="button" id="close" autofocus>Close</button></div><div class="body"></div>'
        "</dialog>",
        f'<script type="application/json" id="data">{_json(_data(summary, records, shown))}</script>',
        f"<script>{script}</script>",
        "</body>",
        "</html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _banner(summary: Mapping[str, Any]) -> str:
    """What the table lacks of the protocol, said before anything else."""
    if summary.get("conforming") is not False:
        return ""
    missing = "".join(f"<li>{escape(part)}</li>" for part in summary.get("missing_parts") or ())
    rows = [row["name"] for row in summary["rows"] if row.get("status") == "done" and not row["conforming"]]
    broken = f"<p>Rows that break a rule: {escape(', '.join(rows))}.</p>" if rows else ""
    lacks = f"<p>It lacks:</p><ul>{missing}</ul>" if missing else ""
    return (
        '<div class="banner" role="note"><p><strong>⚠ Non-conforming.</strong> This table does not keep the whole '
        f"protocol; compare it with others only with that in mind.</p>{lacks}{broken}</div>"
    )


def _tools(shown: Sequence[table.Column]) -> str:
    groups = list(dict.fromkeys(column.group for column in shown))
    buttons = "".join(
        f'<button type="button" class="button" data-group="{group}" aria-pressed="true">{group}</button>'
        for group in groups
    )
    keys = "".join(
        f'<span><span class="kind k-{kind}" aria-hidden="true"></span> {kind}: {meaning}</span>'
        for kind, meaning in KINDS.items()
    )
    keys += '<span><span class="badge">best</span> the best mean on test of its section, controls aside</span>'
    return (
        '<div class="tools"><label for="filter" class="visually-hidden">Filter rows</label>'
        '<input type="search" id="filter" placeholder="Filter rows, e.g. text worse" autocomplete="off">'
        f'<span class="count" id="count" role="status"></span><span>Columns:</span>{buttons}</div>'
        f'<p class="kinds">{keys}</p>'
        '<button type="button" class="button more" id="more" hidden></button>'
        '<div id="said" class="visually-hidden" role="status"></div>'
        "<noscript><p>Without JavaScript the table is complete (it scrolls sideways), but neither sorts nor opens "
        "records.</p></noscript>"
    )


def _table(summary: Mapping[str, Any], shown: Sequence[table.Column]) -> str:
    heads = [
        '<th scope="col" class="name" data-first="ascending" data-title="row"><button type="button">row</button></th>'
    ]
    for column in shown:
        first = "descending" if column.key in DESCENDING and summary["higher_is_better"] else "ascending"
        heads.append(
            f'<th scope="col" class="g-{column.group}" data-first="{first}" data-title="{escape(column.title)}">'
            f'<button type="button">{escape(column.title)}</button></th>'
        )
    numbers = {row["name"]: number for number, row in enumerate(summary["rows"])}
    known = [_line(name, shown, {"ours": cell}) for name, cell in table.bounds(summary)]
    bodies = [("Known without training", known)]
    for title, rows in table.sections(summary):
        best = best_rows(rows, summary["higher_is_better"])
        lines = [_row(summary, row, numbers[row["name"]], shown, row["name"] in best) for row in rows]
        bodies.append((title, lines))
    published = [_published(summary, one, shown) for one in summary["references"]]
    bodies.append(("Published, not run here", published))
    groups = "".join(
        f'<tbody><tr class="section"><th scope="rowgroup" colspan="{len(shown) + 1}"><span>{escape(title)}</span></th>'
        f"</tr>{''.join(rows)}</tbody>\n"
        for title, rows in bodies
        if rows
    )
    return (
        '<div class="frame"><div class="scroll" role="region" aria-label="Table of results" tabindex="0">'
        '<table id="table">'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n{groups}</table></div></div>"
    )


def _row(
    summary: Mapping[str, Any], row: Mapping[str, Any], number: int, shown: Sequence[table.Column], best: bool
) -> str:
    if row["status"] == "done":
        cells = {column.key: column.cell(row) for column in shown}
    else:
        cells = {column.key: column.cell(row) for column in shown if column.key in ("paper", "target")}
        cells["ours"] = Cell(absence(row))
    return _line(row["name"], shown, cells, number, table.row_label(summary, row), kind_of(row), best)


def _published(summary: Mapping[str, Any], one: Mapping[str, Any], shown: Sequence[table.Column]) -> str:
    """A published number that nothing here ran, with the reason why it cannot."""
    cells = {"paper": paper(summary, one), "ours": Cell("not run")}
    reason = one.get("cannot_run")
    if reason:
        cells["target"] = Cell("cannot run", "cannot run")
    return _line(one["name"], shown, cells, marks=[f"({reason})"] if reason else [])


def _line(
    name: str, shown: Sequence[table.Column], cells: Mapping[str, Cell], number: int | None = None,
    marks: Sequence[str] = (), kind: str = "", best: bool = False,
) -> str:  # fmt: skip
    """A row of the table; one with a number opens its record."""
    text = escape(name).replace("+", "+<wbr>")  # a line may break after each modality
    label = text if number is None else f'<button type="button" class="row">{text}</button>'
    if kind:
        label = f'<span class="kind k-{kind}" role="img" aria-label="{kind}" title="{kind}"></span>{label}'
    label += ' <span class="badge">best</span>' * best
    label += "".join(f' <span class="mark">{escape(mark)}</span>' for mark in marks)
    found = [_cell(column, cells.get(column.key, Cell()), number is not None) for column in shown]
    row = "" if number is None else f' data-row="{number}"'
    marked = ' class="best"' if best else ""
    return (
        f'<tr{row}{marked}><th scope="row" class="name" data-sort="{escape(name)}">{label}</th>{"".join(found)}</tr>\n'
    )


def _cell(column: table.Column, cell: Cell, opens: bool) -> str:
    order = "" if cell.order is None else f' data-sort="{escape(str(cell.order))}"'
    kind = f"{column.key} g-{column.group}" + " none" * (cell.text == NONE)
    key = f' data-key="{column.key}" tabindex="-1"' if opens else ""
    text = escape(cell.text)
    if column.key in ("verdict", "target") and cell.order in SIGNS:
        name = str(cell.order).partition(" (")[0].replace(" ", "-")
        text = f'<span class="is-{name}"><span class="sign" aria-hidden="true">{SIGNS[cell.order]}</span> {text}</span>'
    return f'<td class="{kind}"{order}{key}>{text}</td>'


def _notes(summary: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in table.notes(summary))
    return f'<h2>Notes</h2><ol class="notes">{items}</ol>' if items else ""


def _legend(summary: Mapping[str, Any], shown: Sequence[table.Column]) -> str:
    lines = [(column.title, column.meaning) for column in shown]
    best = [f"{title}: {text}" for title, text in table.best_singles(summary)]
    if best:
        lines.append(("best single", "The best single modality of each section: " + "; ".join(best) + "."))
    return "".join(f"<dt>{escape(name)}</dt><dd>{_code(text)}</dd>" for name, text in lines)


def _code(text: str) -> str:
    """Escaped, with what stands between backquotes as code."""
    parts = text.split("`")
    return "".join(f"<code>{escape(part)}</code>" if place % 2 else escape(part) for place, part in enumerate(parts))


def _footer(summary: Mapping[str, Any]) -> str:
    data = summary["dataset"]
    checksum = f" Checksum of the data: <code>{escape(str(data['sha256']))}</code>." if data.get("sha256") else ""
    return (
        f"Made by mmjax from the records of the table <code>{escape(summary['table'])}</code>; every number can be "
        f"recomputed from them without training.{checksum}"
    )


def _data(
    summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]], shown: Sequence[table.Column]
) -> dict[str, Any]:
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
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else key)
    return found


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: null."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever it contains."""
    text = json.dumps(_finite(value), sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
