"""The report of a run over fractions of train: curves, areas, gains, data saved and power laws, from files alone."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures import efficiency
from mmjax.evaluation.report import cells
from mmjax.evaluation.report.plots.style import sections
from mmjax.evaluation.scores import Score, score
from mmjax.evaluation.statistics import significance
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment.markdown import markdown_table
from mmjax.files import read_json, replace_file, rounded, write_json
from mmjax.typing import Mapping

__all__ = ["SWEEP", "folder", "skips", "write_fractions"]

SWEEP = "fractions"
"""``measured`` in ``config.json``."""


ROW_KEYS = ("name", "section", "streams", "role", "kind", "single", "best_single", "status", "validation")


class _Curve(NamedTuple):
    """A row of the whole table, the seeds it has at all sizes, and its scores ``[sizes, seeds, items]``."""

    row: dict[str, Any]
    seeds: list[int]
    scores: np.ndarray


def write_fractions(workdir: str | pathlib.Path) -> str:
    """Writes ``efficiency.json``, ``efficiency.md`` and ``plots/`` from the files of the fractions; returns the text.

    Raises:
      UsageError: fewer than two fractions have been run, or 100 % has not.
    """
    workdir = pathlib.Path(workdir)
    config = RecordStore(workdir).config()
    if config.get("measured") != SWEEP:
        raise UsageError(f"{str(workdir)!r} holds no run over fractions of train")
    done = [place for place, f in enumerate(config["fractions"]) if (folder(workdir, f) / "table.json").is_file()]
    if len(done) < 2 or config["fractions"][done[-1]] != 1:
        raise UsageError(f"{str(workdir)!r} holds {len(done)} finished fractions; run the command again")
    summary = _summarise(workdir, config, done)
    text = _markdown(summary)
    write_json(workdir / "efficiency.json", summary)
    replace_file(workdir / "efficiency.md", text.encode())
    _write_plots(workdir, summary)
    return text


def folder(workdir: pathlib.Path, fraction: float) -> pathlib.Path:
    """Work directory of the rows trained on that share of train."""
    return workdir / f"fraction-{fraction:g}"


def skips(skipped: Sequence[Mapping[str, Any]]) -> str:
    """The fractions that are left out, with reasons."""
    return "; ".join(f"{100 * one['fraction']:g} %: {one['reason']}" for one in skipped)


def _summarise(workdir: pathlib.Path, config: Mapping[str, Any], done: Sequence[int]) -> dict[str, Any]:
    """The content of ``efficiency.json``, from the finished fractions."""
    fractions, items = ([config[key][place] for place in done] for key in ("fractions", "items"))
    stores = [RecordStore(folder(workdir, fraction)) for fraction in fractions]
    tables = [read_json(store.workdir / "table.json") for store in stores]
    whole = tables[-1]
    target, groups = stores[-1].targets("test")
    metric = score(whole["primary"])
    curves: dict[str, _Curve] = {}
    for row in whole["rows"]:
        per_size = [one for table in tables for one in table["rows"] if one["name"] == row["name"]]
        if row["name"] not in config["rows"] or [one["status"] for one in per_size] != ["done"] * len(tables):
            continue
        seeds = sorted(set.intersection(*(set(one["seeds"]) for one in per_size)))
        if seeds:
            scores = np.stack([_scores(store, row["name"], seeds, target, metric) for store in stores])
            curves[row["name"]] = _Curve(row, seeds, scores)
    rows = []
    for curve in curves.values():
        row = {key: curve.row[key] for key in ROW_KEYS} | {"seeds": curve.seeds}
        rows.append(row | _efficiency(curve, groups, items, metric) | _gains(curve, curves, groups, fractions))
    of_table = ("dataset", "primary", "metric_name", "higher_is_better", "group", "groups")
    return rounded(
        {
            **{key: config[key] for key in ("table", "title", "note", "skipped", "small_batches")},
            **{key: whole[key] for key in (*of_table, "score") if key in whole},
            "fractions": fractions,
            "unfinished": [f for f in config["fractions"] if f not in fractions],
            "items": items,
            "test_items": len(groups),
            "rows": rows,
        }
    )


def _scores(store: RecordStore, name: str, seeds: Sequence[int], target: Any, metric: Score) -> np.ndarray:
    stored = store.seeds(name)
    return metric.per_item(store.logits(name, "test")[[stored.index(seed) for seed in seeds]], target)


def _efficiency(curve: _Curve, groups: np.ndarray, items: Sequence[int], metric: Score) -> dict[str, Any]:
    """Mean, intervals, area and power law, in the direction of the metric."""
    sign, scores = metric.sign, curve.scores
    mean = sign * scores.mean((1, 2))
    areas = efficiency.area_under_curve(items, np.moveaxis(scores, 0, -1))  # linear: one per seed and item
    intervals = [_both(one, groups, metric) for one in [*scores, areas]]
    error = 1 - mean if metric.higher_is_better else mean
    law = None
    if len(items) > 2:
        width = [high - low for (low, high), _ in intervals[:-1]]
        law = dataclasses.asdict(efficiency.fit_power_law(items, error, sd=width if min(width) > 0 else None))
    points = {
        "n": list(items), "mean": mean, "interval": [one for one, _ in intervals[:-1]],
        "seed_interval": [one for _, one in intervals[:-1]], "alc": sign * areas.mean(),
        "alc_interval": intervals[-1][0], "alc_seed_interval": intervals[-1][1],
    }  # fmt: skip
    return {"data_efficiency": points, "power_law": law}


def _both(scores: np.ndarray, groups: np.ndarray, metric: Score) -> tuple[list[float], list[float] | None]:
    """Intervals over seeds and test items, and over seeds alone."""
    sign = metric.sign
    whole = significance.crossed_interval(scores, groups, share=metric.is_share)
    seeds = significance.seed_interval(sign * scores.mean(1))
    return sorted((sign * whole.lower, sign * whole.upper)), None if seeds is None else list(seeds)


def _gains(
    curve: _Curve, curves: Mapping[str, _Curve], groups: np.ndarray, fractions: Sequence[float]
) -> dict[str, Any]:
    """The gain at each size over the section's best single modality at that size, and the data saved."""
    row, best = curve.row, [one for one in curves.values() if one.row["best_single"]]
    single = next((one for one in best if one.row["section"] == row["section"]), curve)
    seeds = [seed for seed in curve.seeds if seed in single.seeds]
    if len(row["streams"]) < 2 or single is curve or not seeds:
        return {"gains": None, "data_saved": None}
    ours, reference = (one.scores[:, [one.seeds.index(seed) for seed in seeds]] for one in (curve, single))
    gains = [significance.paired_gain(*pair, groups) for pair in zip(ours, reference)]
    over_whole = [significance.paired_gain(one, reference[-1], groups) for one in ours]
    saved = efficiency.data_saved(fractions, [gain.mean for gain in over_whole], 0.0)
    surely = efficiency.data_saved(fractions, [gain.lower for gain in over_whole], 0.0)
    over = {"over": single.row["name"], "seeds": seeds}
    return {
        "gains": [over | dataclasses.asdict(gain) | {"p": gain.p} for gain in gains],
        "data_saved": over | saved._asdict() | {"surely": surely._asdict()},
    }


def _markdown(summary: Mapping[str, Any]) -> str:
    shares = [f"{100 * fraction:g} %" for fraction in summary["fractions"]]
    sizes = [f"{items} ({share})" for items, share in zip(summary["items"], shares)]
    metric = cells.Unit.of(summary)
    unit = metric.heading if metric.percent else metric.name
    seeds = sorted({len(row["seeds"]) for row in summary["rows"]})
    legend = (
        f"{unit} on the {summary['test_items']} test items after training on {', '.join(sizes)} items of train: nested "
        "parts, whole groups, class by class. Hyper-parameters are those of the table, the number of epochs among "
        "them, so that a smaller part is also trained in fewer steps. Validation, on which epochs are chosen, stays "
        f"whole and is never trained on. {' or '.join(map(str, seeds))} seeds; there is one part of each size, the "
        "same for all of them, so no interval covers which items it happens to hold."
    )
    parts = [f"# {summary['title']}: data efficiency", *filter(None, [summary["note"]]), legend]
    if summary["skipped"]:
        parts.append(f"Skipped: {skips(summary['skipped'])}.")
    if summary["unfinished"]:
        parts.append(f"Not finished: {', '.join(f'{100 * one:g} %' for one in summary['unfinished'])}.")
    parts += [
        f"Mind {100 * one['fraction']:g} %: there one step in {one['steps']} sees only {one['last']} of the "
        f"{one['batch']} items of a batch, what is left at the end of an epoch. A dip may come from that."
        for one in summary["small_batches"]
    ]
    for section, rows in sections(summary["rows"]):
        parts += [f"## {section}"] if section else []
        parts += [_scores_table(summary, rows, sizes), _gains_table(summary, rows, shares), _laws_table(summary, rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _scores_table(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], sizes: Sequence[str]) -> str:
    def cell(mean: float, ends: Sequence[float] | None) -> str:
        if ends is None or ends[0] >= ends[1]:
            return cells.value(summary, mean)
        return f"{cells.value(summary, mean)} ± {cells.value(summary, (ends[1] - ends[0]) / 2)}"

    body = []
    for row in rows:
        curve = row["data_efficiency"]
        points = [cell(*point) for point in zip(curve["mean"], curve["seed_interval"])]
        body.append([row["name"], *points, cell(curve["alc"], curve["alc_seed_interval"])])
    legend = (
        "The score with its 95 % interval over seeds, where they differ. ALC: the area under it over the logarithm of "
        "the number of items, divided by the range of the latter: the mean score along the curve in the plot."
    )
    return legend + "\n\n" + markdown_table(["row", *sizes, "ALC"], body)


def _gains_table(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], shares: Sequence[str]) -> str:
    fused = [row for row in rows if row["gains"]]
    if not fused:
        return ""

    def left(saved: Mapping[str, Any]) -> str:
        fraction, rest = saved["fraction"], saved["saved"]
        return cells.NONE if fraction is None else f"{100 * rest:g} % (from {100 * fraction:g} % on)"

    body = []
    for row in fused:
        points = [cells.gain(summary, gain).text for gain in row["gains"]]
        saved = row["data_saved"]
        body.append([row["name"], *points, left(saved), left(saved["surely"])])
    legend = (
        f"The gain at each size over {fused[0]['gains'][0]['over']}, the best single modality by validation at 100 %, "
        "with its 95 % interval over seeds and test items; it need not rise with the size. Data saved: what is left of "
        "train at the smallest size where the row reaches what that modality has with all of train; surely: where the "
        "interval of the difference lies at or above zero."
    )
    return legend + "\n\n" + markdown_table(["row", *shares, "data saved", "surely"], body)


def _laws_table(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    body = []
    for row in rows:
        if law := row["power_law"]:
            ends = [law["lower"], law["upper"]]
            bounds = "–" if ends[0] is None else f"{ends[0]:.2f} to " + ("∞" if ends[1] is None else f"{ends[1]:.2f}")
            inside = law["a"] > 0 and 0.0101 < law["b"] < 9.9  # else no fall, or one that no power describes
            scale, exponent = (f"{law['a']:.3g}", f"{law['b']:.2f}") if inside else ("–", "–")
            body.append([row["name"], scale, exponent, bounds, f"{law['c']:.3f}"])
    if not body:
        return ""
    legend = (
        "The error as a n^−b + c of the number n of items (Hestness et al. 2017), a share between 0 and 1"
        if cells.Unit.of(summary).percent
        else "The error as a n^−b + c of the number n of items (Hestness et al. 2017)"
    )
    few = "" if len(summary["items"]) >= 5 else f"; {len(summary['items'])} sizes give b no interval, 5 would"
    return f"{legend}; sizes weighted by their intervals{few}." + "\n\n" + markdown_table(
        ["row", "a", "b", "95 % interval of b", "c"], body
    )  # fmt: skip


def _write_plots(workdir: pathlib.Path, summary: Mapping[str, Any]) -> None:
    from mmjax.evaluation.report.plots import efficiency_figure, png
    from mmjax.evaluation.report.plots.lines import efficiency_lines
    from mmjax.evaluation.report.plots.style import label, scale

    by_section = sections(summary["rows"])
    for section, rows in by_section:
        figure = efficiency_figure(efficiency_lines(summary, rows), label(summary), scale(summary))
        if figure is not None:
            title = "data efficiency" + f" {section or 'methods'}" * (len(by_section) > 1)
            stem = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")
            replace_file(workdir / "plots" / f"{stem}.png", png(figure))
