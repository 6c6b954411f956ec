"""Every number of a table, recomputed from a work directory (configuration, targets, records, logits), no training."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.evaluation.measures import calibration
from mmjax.evaluation.measures.degradation import multibench
from mmjax.evaluation.protocol import is_fitted_on_validation, missing_parts
from mmjax.evaluation.report.analyses import Analysis, decision_cells, interaction_cells, of_seeds, robustness_cells
from mmjax.evaluation.report.further import add_judged
from mmjax.evaluation.scores import Score
from mmjax.evaluation.scores import score as find_score
from mmjax.evaluation.scores.classes import right
from mmjax.evaluation.statistics import significance
from mmjax.evaluation.statistics.gains import Scored, add_gains, best_singles, gain_cell, value_interval
from mmjax.evaluation.statistics.published import check_metric, judge
from mmjax.evaluation.store.records import RecordStore
from mmjax.evaluation.store.schema import STANDARD
from mmjax.files import rounded
from mmjax.typing import Mapping

__all__ = ["summarise"]


@dataclasses.dataclass(frozen=True)
class _Run:
    """A row as it lies on disk, with the seeds that the table asks for."""

    seeds: list[int]
    records: list[Mapping[str, Any]]
    logits: dict[str, np.ndarray]
    scores: np.ndarray  # of test, [seeds, items], higher is better; their mean is the metric
    validation: float
    analysis: Analysis | None  # what was measured beyond the scores


def summarise(workdir: str | os.PathLike) -> dict[str, Any]:
    """The table as data: what ``table.json`` holds.

    Reads of ``config.json``: ``table``, ``title``, ``note``, ``dataset``, ``primary``, ``majority``, ``chance``,
    ``seeds``, ``references`` and ``rows``, each with ``name``, ``section``, ``streams``, ``kind``, ``single``,
    ``paper``, ``config_hash`` and, optionally, ``seeds``, ``notes``, ``extra`` and ``role``; optionally ``metric``
    (name with its convention), ``also`` (further scores), ``judged`` (those of them with intervals
    and verdicts of their own), ``streams`` and ``noise`` (what severity means, by modality),
    and in a row ``modality_dropout`` (the rate at which it lost modalities in training), ``members`` (rows that it
    combines) and ``versus`` (the row over which its gain is). A row whose records are of another configuration, or
    whose logits are damaged, counts as not run.

    Raises:
      UsageError: no work directory, a primary metric that is not registered, logits that do not fit the targets.
    """
    store = RecordStore(workdir)
    config = store.config()
    primary = config["primary"]
    score = find_score(primary)
    targets = {split: store.targets(split) for split in ("validation", "test")}
    runs = {row["name"]: _read(store, config, row, targets, score) for row in config["rows"]}
    groups = targets["test"][1]
    metric = config.get("metric") or primary
    config = {**config, **_of_constants(config, targets["test"][0], score)}
    rows = [_row(row, runs[row["name"]], targets, score, metric) for row in config["rows"]]
    runs |= {row["name"]: None for row in rows if row["status"] != "done"}
    for one in config.get("references", []):  # they stand in the same column
        check_metric(metric, one.get("metric") or metric, one["name"])
    scored = {name: Scored(run.seeds, run.scores) for name, run in runs.items() if run is not None}
    power = add_gains(rows, scored, groups, metric=score)
    add_judged(
        rows,
        {name: (run.seeds, run.logits["test"]) for name, run in runs.items() if run is not None},
        targets["test"],
        names=config.get("judged", ()),
        primary=score,
    )
    _add_measured(rows, runs, scored, targets["test"], config, score)
    streams = config.get("streams") or sorted({name for row in rows for name in row["streams"]})
    missing = _missing_seeds(rows, config) + missing_parts(
        rows,
        streams,
        config.get("majority"),
        sequences=config.get("sequences", False),
        higher_is_better=score.higher_is_better,
        alone=score.alone,
    )
    units = np.unique(groups).size
    card = config["dataset"].get("card", {})
    summary = {
        "standard": STANDARD,
        "table": config["table"],
        "title": config["title"],
        "note": config.get("note", ""),
        "dataset": {name: config["dataset"][name] for name in ("name", "version", "sha256", "split_id")},
        "group": card.get("group", "group"),
        "groups": int(units),
        "groups_cross": bool(card.get("groups_cross", False)),
        "items": {split: len(groups) for split, (_, groups) in targets.items()},
        "unit": "group" if units >= significance.MIN_GROUPS else "item",
        "primary": primary,
        "score": score.describe(),
        **({"also": [find_score(name).describe() for name in also]} if (also := config.get("also")) else {}),
        **({"judged": list(judged)} if (judged := config.get("judged")) else {}),
        "metric_name": metric,
        "streams": list(streams),
        "conforming": not missing,
        "missing_parts": missing,
        **({} if store.is_signed() else {"verified": False}),
        **({"orphans": orphans} if (orphans := sorted(store.names() - {row["name"] for row in rows})) else {}),
        "higher_is_better": score.higher_is_better,
        "majority": config.get("majority"),
        "known": config.get("known", []),
        "chance": config.get("chance"),
        "seeds": config["seeds"],
        **power,
        "rows": rows,
        "decisions": _decisions(rows, runs, targets["test"][0], score.sign) if score.outputs == "classes" else [],
        "references": config.get("references", []),
    }
    return rounded(summary)


def _of_constants(config: Mapping[str, Any], target: np.ndarray, score: Score) -> dict[str, Any]:
    """``majority`` and ``chance`` of the configuration, which are shares of right answers, by the table's own score:
    the value of always saying the most frequent class; of chance there is none then.

    Weighted F1 of MELD's most frequent class is 31.3 %, its share 48.1: beside F1 of rows the share says that a bag of
    words is no better than nothing.
    """
    if config.get("majority") is None or score.outputs != "classes" or score.items is right:
        return {}
    said = np.zeros((1, len(target), int(target.max()) + 1))
    said[..., np.bincount(target).argmax()] = 1
    return {"majority": float(score.of(said, target)[0]), "chance": None}


def _missing_seeds(rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> list[str]:
    """Seeds that the table asks for and a finished row does not have."""
    wanted = {row["name"]: row.get("seeds") or config["seeds"] for row in config["rows"]}
    lacking = {row["name"]: sorted(set(wanted[row["name"]]) - set(row.get("seeds", ()))) for row in rows}
    return [
        f"seed{'s' * (len(lost) > 1)} {', '.join(map(str, lost))} of row {name!r}"
        for name, lost in lacking.items()
        if lost and any(row["name"] == name and row["status"] == "done" for row in rows)
    ]


def _read(store: RecordStore, config: Mapping, row: Mapping, targets: Mapping, score: Score) -> _Run | None:
    name, wanted = row["name"], set(row.get("seeds") or config["seeds"])
    records = {r["seed"]: r for r in store.records(name) if r["method"]["config_hash"] == row["config_hash"]}
    if not records or not store.verify(name):
        return None
    there = store.seeds(name)
    places = [place for place, seed in enumerate(there) if seed in wanted and seed in records]
    if not places:
        return None
    seeds = [there[place] for place in places]
    logits = {split: store.logits(name, split)[places].astype(np.float64) for split in targets}
    for split, (target, groups) in targets.items():
        if logits[split].shape[1] != len(groups):
            raise UsageError(f"row {name!r} has {logits[split].shape[1]} {split} items, the targets have {len(groups)}")
        score.check(logits[split], target, name)
    scores = score.per_item(logits["test"], targets["test"][0])
    held_out = logits["validation"], targets["validation"][0]
    if score.is_mean:
        validation = score.sign * score.per_item(*held_out).mean()
    else:
        validation = score.of(*held_out).mean()
    digest, arrays = store.analysis(name) or ({}, {})
    logits_sha256 = records[seeds[0]]["logits_sha256"]
    of_row = digest.get("config_hash") == row["config_hash"] and digest.get("seeds") == there
    of_row = of_row and digest.get("logits", logits_sha256) == logits_sha256
    analysis = of_seeds(arrays, places) if of_row else None
    return _Run(seeds, [records[seed] for seed in seeds], logits, scores, validation, analysis)


def _row(row: Mapping[str, Any], run: _Run | None, targets: Mapping, score: Score, metric: str) -> dict[str, Any]:
    cells: dict[str, Any] = {key: row.get(key) for key in ("name", "section", "streams", "kind", "single", "paper")}
    cells |= {"notes": row.get("notes", ""), "extra": bool(row.get("extra", False)), "role": row.get("role") or None}
    cells["validation_scores"] = row.get("validation_scores")
    cells["members"] = list(row.get("members") or [])
    if row.get("versus"):
        cells["versus"] = row["versus"]
    cells["modality_dropout"] = row.get("modality_dropout") or 0.0
    if cells["single"] and not cells["role"]:
        cells["role"] = "single"
    if paper := row.get("paper"):
        paper = {**paper, "metric": paper.get("metric") or metric}
        check_metric(metric, paper["metric"], row["name"])
    if run is None:
        return {**cells, "status": "not run", "target": judge(paper, None)}
    sign = score.sign
    values = sign * run.scores.mean(1)
    if not np.isfinite([*values, run.validation]).all():
        return {**cells, "status": "not defined", "target": judge(paper, None)}
    interval = value_interval(run.scores, targets["test"][1], score)
    over_seeds = significance.seed_interval(values)
    selected = [record["test_selected"] for record in run.records]
    return {
        **cells,
        "status": "done",
        "seeds": run.seeds,
        "epochs": [record["epoch"] for record in run.records],
        "values": values.tolist(),
        "mean": values.mean(),
        "sd": values.std(ddof=1) if len(values) > 1 else None,
        "seed_interval": over_seeds,
        "half_width": None if over_seeds is None else (over_seeds[1] - over_seeds[0]) / 2,
        "interval": [interval.lower, interval.upper] if len(values) > 2 else None,
        "interval_unit": interval.unit,
        "validation": run.validation,
        "target": judge(paper, values, score),
        "test_selected": None if None in selected else float(np.mean(selected)),
        "metrics": _means([record["metrics"] for record in run.records]),
        "calibration": _calibration(run, targets, is_fitted_on_validation(row)) if score.outputs == "classes" else None,
        "params": run.records[0]["cost"].get("params"),
        "flops": run.records[0]["cost"].get("flops"),
        "cost": run.records[0]["cost"],
        "selection_rule": run.records[0]["selection_rule"],
        "setting": _setting(run.records[0]["method"]),
        "conforming": all(record["conforming"] for record in run.records),
    }


def _setting(method: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a search chose, and among how many trials; None where nothing was tried."""
    return {"trials": method["trials"], **method["choice"]} if method.get("choice") else None


def _means(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in metrics])) for name in sorted(metrics[0])}


def _calibration(run: _Run, targets: Mapping, fitted: bool) -> dict[str, Any]:
    """Means over seeds, before and after temperature scaling on validation, and the diagram of all seeds."""
    target, groups = targets["test"]
    truth = {split: labels for split, (labels, _) in targets.items()}
    of_seeds = [{split: run.logits[split][place] for split in truth} for place in range(len(run.seeds))]
    cells = [calibration.before_and_after(logits, truth, fitted=fitted) or {} for logits in of_seeds]
    interval = calibration.calibration_interval(run.logits["test"], target, groups)
    diagram = calibration.reliability(run.logits["test"], target)
    return {
        **_means(cells),
        "ece_interval": [interval.lower, interval.upper],
        "ece_debiased": interval.debiased,
        "reliability": {name: values.tolist() for name, values in diagram._asdict().items()},
    }


def _decisions(
    rows: list[dict], runs: Mapping[str, _Run | None], target: np.ndarray, sign: int
) -> list[dict[str, Any]]:
    """Partial information in the single modalities' decisions, of the first section that has a fusion of them."""
    fused = [row for row in rows if row["status"] == "done" and len(row["streams"]) > 1]
    if not fused:
        return []
    section = [row for row in rows if row["status"] == "done" and row["section"] == fused[0]["section"]]
    alone = _best_alone(section, sign)
    logits = {name: run.logits["test"] for name, row in alone.items() if (run := runs[row["name"]])}
    return decision_cells(logits, target)


def _best_alone(section: Sequence[dict], sign: int) -> dict[str, dict]:
    """Of each modality its best row on validation: a network, or a linear model of statistics."""
    return best_singles(section, sign, by=lambda row: row["streams"][0])


def _add_measured(
    rows: list[dict],
    runs: Mapping[str, _Run | None],
    scored: Mapping[str, Scored],
    targets: tuple[Any, np.ndarray],
    config: Mapping[str, Any],
    score: Score,
) -> None:
    """Robustness, interaction, and the gains over the untrained mean and the ensemble, each within its section."""
    target, groups = targets
    scales = config.get("noise", {})
    sections: dict[str, list[dict]] = {}
    for row in rows:
        if row["status"] == "done":
            sections.setdefault(row["section"], []).append(row)
    for section in sections.values():
        by_role = {row["role"]: row for row in reversed(section)}
        late, ensemble = by_role.get("mean of logits"), by_role.get("ensemble control")
        alone = _best_alone(section, score.sign)
        for row in section:
            run = runs[row["name"]]
            if run is None:
                continue
            row["gain_late_mean"] = _plain_gain(row, late, scored, groups, score)
            row["gain_ensemble"] = _plain_gain(row, ensemble, scored, groups, score)
            row["interaction"] = interaction_cells(run.analysis, row["streams"]) if run.analysis else None
            row["interaction_note"] = _interaction_note(row, run)
            row["robustness"] = None
            if run.analysis and any(name.startswith(("noise/", "pattern/")) for name in run.analysis):
                same = late is not None and set(late["streams"]) == set(row["streams"])
                reference = runs[late["name"]] if late and same else None
                row["robustness"] = robustness_cells(
                    run.analysis,
                    target,
                    metric=score,
                    chance=_ignoring(config, score),
                    reference=reference.analysis if reference else None,
                    singles={name: score.sign * one["mean"] for name, one in alone.items()},
                    chosen_by={name: score.sign * one["validation"] for name, one in alone.items()},
                    scales=scales,
                    regime=_regime(row),
                )
        _add_multibench(section, late)


def _ignoring(config: Mapping[str, Any], score: Score) -> float:
    """What ignoring the input reaches."""
    known = config.get("majority") if score.alone else config.get("chance")
    return known or score.chance


def _regime(row: Mapping[str, Any]) -> str:
    rate = row["modality_dropout"]
    return f"trained with modality dropout {rate:g}" if rate else "clean-trained"


def _add_multibench(section: list[dict], late: dict | None) -> None:
    """MultiBench's scores under noise on all modalities; its pool is the section's rows that see them all."""
    if late is None or not late.get("robustness"):
        return
    measured = [row for row in section if row.get("robustness") and set(row["streams"]) == set(late["streams"])]
    curves = {row["name"]: row["robustness"]["noise"]["all"]["mean"] for row in measured if _has_all(row)}
    if late["name"] in curves:
        for name, scores in multibench(curves, curves[late["name"]]).items():
            next(row for row in measured if row["name"] == name)["robustness"]["multibench"] = scores


def _has_all(row: Mapping[str, Any]) -> bool:
    return "all" in row["robustness"]["noise"]


def _interaction_note(row: Mapping[str, Any], run: _Run) -> str:
    if row["interaction"]:
        return ""
    if len(row["streams"]) < 2:
        return "one modality"
    if run.analysis is None:
        return "not defined, or not measured"
    return str(run.analysis.get("interactions/note", "not in scope: --interactions all"))


def _plain_gain(
    row: Mapping, over: Mapping | None, scored: Mapping[str, Scored], groups: np.ndarray, score: Score
) -> dict[str, Any] | None:
    """The paired gain over another row, without a verdict: the table tests one hypothesis a row."""
    if over is None or len(row["streams"]) < 2 or over["name"] == row["name"]:
        return None
    return gain_cell(scored[row["name"]], scored[over["name"]], over["name"], groups, score)
