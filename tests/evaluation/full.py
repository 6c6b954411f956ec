"""A summary with every field filled: a measured ``table.json``, and seeded numbers where it has none yet."""

import json
import pathlib

import numpy as np

RESULTS = pathlib.Path(__file__).parents[2] / "experiments" / "results"
NEW_FIELDS = ("role", "gain_late_mean", "gain_ensemble", "interaction", "interaction_note", "robustness", "target",
              "cost", "data_efficiency")  # fmt: skip
SCALES = {"audio": "SNR 30 → −10 dB", "text": "share of words deleted, 0 → 1", "all": "all of the above together"}


def bare_summary(name="cmu_mosi"):
    """As the table was before the new fields: none of them is there."""
    summary = json.loads((RESULTS / name / "table.json").read_text())
    for row in summary["rows"]:
        for field in NEW_FIELDS:
            row.pop(field, None)
        for field in ("reliability", "ece_interval", "classwise_ece"):
            (row.get("calibration") or {}).pop(field, None)
    for published in summary["references"]:
        for field in ("metric", "split", "tolerance", "cannot_run", "reason"):
            published.pop(field, None)
    for field in ("conforming", "missing_parts", "metric_name"):
        summary.pop(field, None)
    return summary


def empty_summary(name="cmu_mosi"):
    """All new fields are there and null."""
    summary = bare_summary(name)
    for row in summary["rows"]:
        row |= dict.fromkeys(NEW_FIELDS)
        if row.get("calibration"):
            row["calibration"] |= {"ece_interval": None, "classwise_ece": None, "reliability": None}
    return summary | {"conforming": True, "missing_parts": [], "metric_name": "accuracy"}


def full_summary(name="cmu_mosi", seed=0):
    """Everything filled."""
    draw = np.random.default_rng(seed)
    summary = empty_summary(name)
    summary |= {"conforming": False, "missing_parts": ["shuffled control", "ensemble of the best single modality"]}
    summary["references"] = [{"name": "published & <elsewhere>", "value": 81, "source": "a book", "checked": True}]
    for row in summary["rows"]:
        if row["status"] == "done":
            _fill(row, summary, draw)
    return summary


def _fill(row, summary, draw):
    several = len(row["streams"]) > 1
    row["role"] = "single" if row["single"] else "mean of logits" if row["name"].startswith("mean of logits") else None
    row["cost"] = {"params": row["params"] or None, "params_fusion": (row["params"] or 0) // 3 or None,
                   "flops": row["flops"], "flops_xla": None,
                   "train_flops_xla": row["flops"] and 3 * row["flops"]}  # fmt: skip
    targets = [*sorted(row["streams"]), *(["all"] if several else [])]
    chance = summary["chance"]
    row["robustness"] = {
        "regime": "clean-trained",
        "noise": {t: _curve(row["mean"], chance, SCALES.get(t, "Gaussian, 0 → 2 s.d."), t, draw) for t in targets},
        "missing": {t: _curve(row["mean"], chance, "share of test items without it", t, draw) for t in targets},
        "patterns": {"+".join(sorted(row["streams"])): {"mean": row["mean"], "interval": row["interval"], "ece": 0.1}},
        "worst_drop": {"modality": row["streams"][0], "value": float(draw.uniform(0, 0.3))},
        "harmful": sorted(row["streams"])[:1] if several and draw.random() < 0.3 else [],
        "multibench": {"relative": float(draw.random()), "effective": float(draw.normal())},
    }
    if row["gain"]:
        row["gain_late_mean"] = {**row["gain"], "over": "mean of logits"}
        row["gain_ensemble"] = {**row["gain"], "over": "ensemble of text"}
        gap = float(draw.normal(0.01, 0.01))
        values = draw.normal(0.1, 0.08, len(row["streams"]))
        row["interaction"] = {
            "emap": {"score": row["mean"] - gap, "gap": gap, "interval": [gap - 0.008, gap + 0.008], "n": 200,
                     "draws": 3},
            "shapley": {
                m: {"value": v, "share": v / abs(values).sum(), "interval": [v - 0.02, v + 0.02]}
                for m, v in zip(sorted(row["streams"]), values.tolist())
            },
            "shapley_rule": "permutation",
            "perceptual": {m: {"value": 0.2, "interval": [0.1, 0.3]} for m in sorted(row["streams"])},
        }  # fmt: skip
    row["interaction_note"] = "" if several else "not defined for one modality"
    edges = np.linspace(max(chance, 0.5), 1, 11)
    centres = (edges[1:] + edges[:-1]) / 2
    if row["calibration"]:
        row["calibration"] |= {
            "ece_interval": [row["calibration"]["ece"] - 0.02, row["calibration"]["ece"] + 0.02],
            "classwise_ece": 0.1,
            "reliability": {
                "confidence": centres.tolist(),
                "accuracy": np.clip(0.8 * centres + draw.normal(0, 0.04, 10), 0, 1).tolist(),
                "share": draw.dirichlet(np.ones(10)).tolist(),
            },
        }
    sizes = [12, 36, 119, 397, 1178]
    learned = chance + (row["mean"] - chance) * (1 - np.exp(-np.arange(1, 6) / 1.5)) / (1 - np.exp(-5 / 1.5))
    row["data_efficiency"] = {"n": sizes, "mean": learned.tolist(), "alc": float(learned.mean()),
                              "interval": [[m - 0.03, m + 0.03] for m in learned.tolist()]}  # fmt: skip
    if row["paper"]:
        row["target"] = {**row["paper"], "metric": "accuracy", "split": "62/31", "tolerance": 1.0,
                         "status": "close", "reason": "fewer videos are trained on"}  # fmt: skip


def _curve(clean, floor, scale, target, draw):
    levels = np.linspace(0, 1, 11)
    keeps = {"text": 0.1, "all": 0.0}.get(target, 0.85)
    mean = floor + (clean - floor) * (keeps + (1 - keeps) * (1 - levels) ** 1.5) + draw.normal(0, 0.004, 11)
    return {"levels": levels.tolist(), "scale": scale, "mean": mean.tolist(), "area": float(mean.mean()),
            "interval": [[m - 0.015, m + 0.015] for m in mean.tolist()], "effective": float(draw.normal(0, 0.01)),
            "retention": float((mean.mean() - floor) / (clean - floor))}  # fmt: skip


def records_of(summary):
    """A record a seed of each finished row, with the fields of the schema."""
    records = []
    for row in summary["rows"]:
        if row["status"] != "done":
            continue
        for place, seed in enumerate(row["seeds"]):
            metrics = {"accuracy": row["values"][place], "f1_weighted": row["values"][place] - 0.01}
            records.append({
                "standard": summary["standard"], "row": row["name"], "streams": row["streams"],
                "dataset": {**summary["dataset"], "n": summary["items"]["test"], "group": summary["group"]},
                "method": {"name": row["name"], "config_hash": "c0ffee" + str(len(row["name"])), 
                           "params": row["params"], "trials": 1},
                "seed": seed, "selection_rule": row["selection_rule"], "epoch": row["epochs"][place],
                "test_selected": row["test_selected"], "primary": summary["primary"], "metrics": metrics,
                "validation_metrics": {"accuracy": row["validation"]},
                "logits_path": {s: f"logits/row-{len(row['name'])}.npz:{s}" for s in ("validation", "test")},
                "logits_sha256": "ab" * 32, "cost": {"params": row["params"], "flops": row["flops"]},
                "env": {"jax": "0.10.2", "device": "cpu", "dtype": "float32", "commit": "0123456789"},
                "conforming": True, "notes": row["notes"],
            })  # fmt: skip
    return records
