"""From what was measured of a row (``analysis/`` of a work directory) to the cells of a table, with intervals."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.evaluation.measures import calibration, degradation
from mmjax.evaluation.measures.decomposition import decompose, joint_counts, predicted_classes
from mmjax.evaluation.measures.robustness import expected_missing
from mmjax.evaluation.scores import Score
from mmjax.evaluation.statistics.significance import seed_interval
from mmjax.typing import Mapping

__all__ = [
    "Analysis",
    "decision_cells",
    "interaction_cells",
    "of_seeds",
    "pattern_cells",
    "record_fields",
    "robustness_cells",
]

Analysis = Mapping[str, np.ndarray]


def _levels(curve: np.ndarray) -> tuple[float, ...]:
    return tuple(np.linspace(0, 1, len(curve)).tolist())


def _spread(values: Any) -> dict[str, Any]:
    """Mean and interval over seeds."""
    values = np.asarray(values, np.float64)
    return {"mean": float(values.mean()), "interval": seed_interval(values)}


def _by_pattern(analysis: Analysis, target: Any, metric: Score) -> dict[tuple[str, ...], np.ndarray]:
    """Mean scores ``[seeds]`` of every presence pattern."""
    scores = {}
    for name, outputs in analysis.items():
        if name.startswith("pattern/"):
            pattern = tuple(filter(None, name.removeprefix("pattern/").split("+")))
            scores[pattern] = metric.worth(outputs, target)
    return scores


def _missing(
    analysis: Analysis, patterns: Mapping[tuple[str, ...], np.ndarray], target: Any, metric: Score, touched: str
) -> np.ndarray:
    """The curve ``[rates, seeds]`` where items lose a modality at random; a metric of the whole set is taken of all
    patterns' outputs together, each item as often as it meets the pattern.

    Args:
      patterns: scores of the analysis, ``_by_pattern``.
    """
    if metric.is_mean:
        return expected_missing(patterns, touched)
    chances = [expected_missing({one: float(one == kept) for one in patterns}, touched) for kept in patterns]
    versions = [analysis["pattern/" + "+".join(kept)] for kept in patterns]
    weights = [np.repeat(chance[:, None], one.shape[1], axis=1) for chance, one in zip(chances, versions)]
    return metric.worth_of(metric.pooled(versions, target, weights)).T


def pattern_cells(analysis: Analysis, target: Any, metric: Score) -> dict[str, Any]:
    """Score and, of classes, calibration error of every presence pattern, by ``audio+text``."""
    cells = {}
    for pattern, scores in _by_pattern(analysis, target, metric).items():
        if not pattern:
            continue
        name = "+".join(pattern)
        cells[name] = _spread(scores)
        if metric.outputs == "classes":
            outputs = analysis[f"pattern/{name}"]
            cells[name]["ece"] = float(np.mean([calibration.calibration_error(one, target) for one in outputs]))
    return cells


def robustness_cells(
    analysis: Analysis,
    target: Any,
    *,
    metric: Score,
    chance: float,
    reference: Analysis | None,
    singles: Mapping[str, float],
    chosen_by: Mapping[str, float],
    scales: Mapping[str, str],
    regime: str,
) -> dict[str, Any]:
    """What noise and loss of modalities do to a row.

    Args:
      analysis: of the row.
      target: of the test items.
      metric: the table's.
      chance: score that ignoring the input reaches.
      reference: analysis of the mean of the single modalities' logits.
      singles: clean score of each modality's single row.
      chosen_by: their validation scores.
      scales: what severity means, by modality.
      regime: how the row was trained.
    """
    noise, curves = {}, {}
    for name in sorted(analysis):
        if not name.startswith("noise/"):
            continue
        touched = name.removeprefix("noise/")
        by_seed = analysis[name].mean(1)  # [levels, seeds]
        curves[touched] = by_seed.mean(1)
        theirs = None if reference is None or name not in reference else reference[name].mean((1, 2))
        noise[touched] = _curve_cells(by_seed, chance, theirs) | {"scale": scales.get(touched, "each at this severity")}
    patterns = _by_pattern(analysis, target, metric) if metric.alone else {}  # else no query, or no answer
    streams = max(patterns, key=len, default=[name for name in curves if name != degradation.ALL])
    others = {} if reference is None else _by_pattern(reference, target, metric)
    compared = len(others) == len(patterns)
    missing = {}
    for touched in [*streams, *([degradation.ALL] if len(streams) > 1 else [])] if patterns else []:
        by_seed = _missing(analysis, patterns, target, metric, touched)
        theirs = _missing(reference, others, target, metric, touched).mean(-1) if compared and reference else None
        missing[touched] = _curve_cells(by_seed, chance, theirs)
    alone = {name: curve for name, curve in curves.items() if name != degradation.ALL}
    modality, drop = degradation.worst_drop(alone) if alone and len(streams) > 1 else (None, None)
    comparable = bool(alone) and len(streams) > 1 and all(name in singles for name in alone)
    return {
        "regime": regime,
        "noise": noise,
        "missing": missing,
        "patterns": pattern_cells(analysis, target, metric) if patterns else {},
        "worst_drop": None if modality is None else {"modality": modality, "value": drop},
        "harmful": degradation.harmful(alone, singles, chosen_by) if comparable else None,
    }


def _curve_cells(by_seed: np.ndarray, chance: float, reference: np.ndarray | None) -> dict[str, Any]:
    levels = _levels(by_seed)
    curve = by_seed.mean(1)
    return {
        "levels": list(levels),
        "mean": curve.tolist(),
        "interval": [seed_interval(values) for values in by_seed],
        "area": float(degradation.area(curve, levels)),
        "retention": float(degradation.retention(curve, chance, levels)),
        "effective": None if reference is None else float(degradation.effective_robustness(curve, reference, levels)),
    }


def interaction_cells(analysis: Analysis, streams: Sequence[str]) -> dict[str, Any] | None:
    """EMAP gap, Shapley values and perceptual scores, each with its interval over seeds, and the gate; None where not
    measured. There is no EMAP of outputs that do not add up (embeddings, sentences).
    """
    if "shapley/values" not in analysis:
        return None
    shapley = analysis["shapley/values"]  # [seeds, modalities]
    shares = shapley / np.maximum(np.abs(shapley).sum(-1, keepdims=True), 1e-12)
    perceptual = analysis["perceptual/values"]
    return {
        "emap": _emap_cell(analysis) if "emap/gap" in analysis else None,
        "shapley": {
            name: {
                "value": float(shapley[:, place].mean()),
                "share": float(shares[:, place].mean()),
                "interval": seed_interval(shapley[:, place]),
            }
            for place, name in enumerate(sorted(streams))
        },
        "shapley_rule": str(analysis["shapley/rule"]),
        "perceptual": {
            name: {"value": float(perceptual[:, place].mean()), "interval": seed_interval(perceptual[:, place])}
            for place, name in enumerate(sorted(streams))
        },
        "gate": _gate_cells(analysis, streams) if "gate/gains" in analysis else None,
    }


def _emap_cell(analysis: Analysis) -> dict[str, Any]:
    gap = analysis["emap/gap"].mean(-1)
    return {
        "score": float(analysis["emap/score"].mean()),
        "gap": float(gap.mean()),
        "interval": seed_interval(gap),
        "n": int(analysis["emap/items"]),
        "draws": int(analysis["emap/gap"].shape[-1]),
        "seeds": int(gap.shape[0]),
    }


def _gate_cells(analysis: Analysis, streams: Sequence[str]) -> dict[str, Any]:
    names = ("gain", "lower", "upper", "p")
    cells = {name: dict(zip(names, gain)) for name, gain in zip(sorted(streams), analysis["gate/gains"].tolist())}
    return {name: cell | {"matters": cell["lower"] > 0 and cell["p"] < 0.05} for name, cell in cells.items()}


def of_seeds(analysis: Analysis, places: Sequence[int]) -> Analysis:
    """What was measured of some seeds, by their places; interactions are there for the first seeds alone."""
    chosen = {}
    for name, values in analysis.items():
        if name.startswith("pattern/"):
            chosen[name] = values[list(places)]
        elif name.startswith("noise/"):
            chosen[name] = values[:, :, list(places)]
        elif name.startswith(("emap/", "shapley/", "perceptual/")) and values.ndim:
            measured = [place for place in places if place < len(values)]
            chosen |= {name: values[measured]} if measured else {}
        elif name != "gate/gains" or set(range(int(analysis["gate/seeds"]))) <= set(places):
            chosen[name] = values
    lost = "shapley/values" in analysis and "shapley/values" not in chosen
    return _without_interactions(chosen) if lost else chosen


def _without_interactions(analysis: Analysis) -> Analysis:
    return {name: values for name, values in analysis.items() if name.startswith(("pattern/", "noise/"))}


def record_fields(analysis: Analysis, streams: Sequence[str], target: Any, metric: Score) -> list[dict[str, Any]]:
    """What was measured of each seed of a row, as fields of its record; those that were not measured are not there.

    Interactions are measured of the first seeds only.
    """
    masks = {"+".join(kept) or "none": scores for kept, scores in _by_pattern(analysis, target, metric).items()}
    curves = {name.removeprefix("noise/"): analysis[name].mean(1) for name in sorted(analysis) if "noise/" in name}
    fields: list[dict[str, Any]] = []
    lengths = [len(scores) for scores in masks.values()] + [curve.shape[1] for curve in curves.values()]
    for seed in range(max(lengths, default=0)):
        record: dict[str, Any] = {}
        if masks:
            record["per_mask"] = {kept: float(scores[seed]) for kept, scores in masks.items()}
        if curves:
            record["robustness"] = {name: _short(curve[:, seed]) for name, curve in curves.items()}
        if "shapley/values" in analysis and seed < len(analysis["shapley/values"]):
            if "emap/gap" in analysis:
                score, gap = (float(analysis[f"emap/{part}"][seed].mean()) for part in ("score", "gap"))
                record["emap"] = {"score": score, "gap": gap, "n": int(analysis["emap/items"])}
            for part in ("shapley", "perceptual"):
                record[part] = dict(zip(sorted(streams), _short(analysis[f"{part}/values"][seed])))
        fields.append(record)
    return fields


def _short(values: np.ndarray) -> list[float]:
    """At six digits after the point: shares of items."""
    return [round(float(value), 6) for value in values]


MOST_CLASSES, MOST_MODALITIES, SEEDS = 10, 3, 3  # beyond them the joint is too thin, or takes too long


def decision_cells(logits: Mapping[str, np.ndarray], target: np.ndarray) -> list[dict[str, Any]]:
    """What the decisions of two single modalities say of the target, in bits: partial information, measure BROJA.

    Of the predicted classes, which are discrete, on the test items: mean over the first three seeds. The plug-in
    estimate is biased upwards on few items. Empty for scores, more than ten classes or more than three modalities.

    Args:
      logits: of each modality's single row, ``[seeds, items, classes]``.
    """
    shapes = {values.shape[-1] for values in logits.values() if values.ndim == 3}
    if not shapes or max(shapes) > MOST_CLASSES or not 2 <= len(logits) <= MOST_MODALITIES:
        return []
    cells = []
    for first, second in itertools.combinations(sorted(logits), 2):
        count = min(len(logits[first]), len(logits[second]), SEEDS)
        decided = {name: predicted_classes(logits[name]) for name in (first, second)}
        atoms = [decompose(joint_counts(decided[first][i], decided[second][i], target)) for i in range(count)]
        mean = np.mean(atoms, axis=0)
        cells.append(
            {
                "modalities": [first, second],
                "redundancy": float(mean[0]),
                "unique": [float(mean[1]), float(mean[2])],
                "synergy": float(mean[3]),
                "information": float(mean[4]),
                "seeds": count,
            }
        )
    return cells
