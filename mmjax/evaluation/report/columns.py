"""The columns of a table, each said once: its cell, what it sorts by, what it means, which fields lie behind it."""

import functools
from collections.abc import Callable
from typing import Any

from mmjax.evaluation.report.cells import NONE, Cell, Column, Row, Unit, brackets, count, decimal, paper, value
from mmjax.evaluation.report.further import further_columns
from mmjax.evaluation.report.gain_columns import gain_columns, unit_of_tests
from mmjax.typing import Mapping

__all__ = ["CLOCK", "Column", "columns"]

CLOCK = "clock"
"""The group of the columns that a clock measured: they differ whenever they are measured."""


def columns(summary: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> list[Column]:
    """The columns of this table in their order, without those that would be empty.

    Args:
      timing: what the clock said of each row (``timing.json``); without it there are no columns of time and memory.
    """
    done = [row for row in summary["rows"] if row["status"] == "done"]
    every = [*_result(summary), *further_columns(summary), *gain_columns(summary), *_interaction(summary),
             *_robustness(summary), *CALIBRATION, *COST, *_clock(timing or {})]  # fmt: skip
    always = {"ours", *(["paper"] if summary["references"] else [])}
    if any(one.get("cannot_run") for one in summary["references"]) or any(row.get("target") for row in summary["rows"]):
        always.add("target")
    return [c for c in every if c.key in always or any(c.cell(row).text != NONE for row in done)]


def _field(path: str, show: Callable[[Any], str]) -> Callable[[Row], Cell]:
    """The cell of the field at ``path``, names joined by dots; empty where it is null or not there."""

    def cell(row: Row) -> Cell:
        inner: Any = row
        for name in path.split("."):
            inner = (inner or {}).get(name)
        return Cell() if inner is None else Cell(show(inner), inner)

    return cell


def _points(share: float) -> str:
    return decimal(100 * share, 1)


def _percent(share: float) -> str:
    return decimal(100 * share, 0)


def _result(summary: Mapping[str, Any]) -> list[Column]:
    papers = [row["paper"] for row in summary["rows"] if row["paper"]] + summary["references"]
    sources = "; ".join(dict.fromkeys(paper["source"] for paper in papers))
    metric, show = Unit.of(summary), functools.partial(value, summary)

    def ours(row: Row) -> Cell:
        half = f" ± {show(row['half_width'])}" if row["half_width"] else ""
        return Cell(show(row["mean"]) + half, row["mean"])

    def interval(row: Row) -> Cell:
        ends = row["interval"]
        return Cell() if ends is None else Cell(" to ".join(map(show, ends)), ends[0])

    def status(row: Row) -> Cell:
        if not (target := row.get("target")):
            return Cell()
        if target.get("difference") is None:
            return Cell(target["status"], target["status"])
        scale = metric.factor  # the target is in the units of the paper
        ends = target.get("difference_interval")
        between = brackets(summary, [end / scale for end in ends]) if ends else ""
        return Cell(f"{target['status']} ({show(target['difference'] / scale, sign=True)}{between})", target["status"])

    return [
        Column("paper", "paper", "paper",
               "The published number. `unchecked`: recalled, not yet compared with the paper itself."
               + f" From: {sources}." * bool(sources), ("paper",), lambda row: paper(summary, row["paper"])),
        Column("target", "reproduced?", "paper",
               "Ours less the published number, with its 95 % interval over seeds. `reproduced`: at most "
               f"{metric.near or '1 % of the number'} (or the row's own tolerance), its interval at most twice that, "
               "so that no noise helps; `consistent (wide)`: the interval holds zero, but nothing closer can be said; "
               "`close`: at most twice the bound; `not reproduced`; or `cannot run`.", ("target",), status),
        Column("ours", "ours", "result",
               "Mean over seeds ± half the 95 % interval over seeds (t); the epoch is chosen on validation. The "
               "interval shows what the chance in training does, on these test items; a row without ± gives the same "
               "with every seed, or has fewer than three.",
               ("mean", "sd", "seed_interval", "values", "metrics"), ours),
        Column("interval", "95 % interval", "result",
               "What other seeds and other test data of the kind would give: of a standard error over seeds and "
               f"{unit_of_tests(summary)}{', on the logit scale' * metric.is_share}. The one to judge by; that over "
               "seeds beside the mean holds for these test items only, and may be wider where the seeds differ much.",
               ("interval", "interval_unit"), interval),
        Column("pearson", "r", "result", "Pearson's correlation of predictions and targets, mean over seeds; a "
               "constant has none.", ("metrics",), _field("metrics.pearson", lambda r: decimal(r, 3))),
        Column("selected", "epoch by test", "paper", "The same runs with each seed's epoch chosen on the test set. No "
               "result: it shows what that choice adds to a published number.", ("test_selected",),
               _field("test_selected", show)),
    ]  # fmt: skip


def _interaction(summary: Mapping[str, Any]) -> list[Column]:
    several = any(len(row["streams"]) > 2 for row in summary["rows"])
    surrogate = (
        " Of more than two modalities the sum is an additive surrogate, not the least-squares projection of Hessel and "
        "Lee (2020), who define it for two; another sum may lose less."
    ) * several

    def emap(row: Row) -> Cell:
        cell = (row.get("interaction") or {}).get("emap")
        if not cell:
            return Cell()
        return Cell(value(summary, cell["gap"], sign=True) + brackets(summary, cell.get("interval")), cell["gap"])

    def by_modality(field: str, key: str) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            cells = (row.get("interaction") or {}).get(field) or {}
            shares = {modality: one[key] for modality, one in cells.items() if one.get(key) is not None}
            text = ", ".join(f"{name} {_percent(share)}" for name, share in sorted(shares.items()))
            return Cell(text, max(shares.values())) if shares else Cell()

        return cell

    def gate(row: Row) -> Cell:
        cells = (row.get("interaction") or {}).get("gate") or {}
        parts = [
            f"{name} {value(summary, one['gain'], sign=True)}{' ✓' if one['matters'] else ''}"
            for name, one in sorted(cells.items())
        ]
        return Cell(", ".join(parts), min(one["gain"] for one in cells.values())) if cells else Cell()

    return [
        Column("emap", "EMAP gap", "interaction",
               "What the row loses when its logits are replaced by a sum of functions of one modality each (its "
               "empirical multimodally-additive projection); zero: no interplay was used. Of the first "
               "five seeds, each on two draws of 200 test items." + surrogate,
               ("interaction", "interaction_note"), emap),
        Column("shapley", "Shapley shares, %", "interaction",
               "How much of the score each modality brings, averaged over the orders in which they could be added. "
               "An absent one is that of another item; in rows trained with modality dropout it is blank.",
               ("interaction",), by_modality("shapley", "share")),
        Column("perceptual", "perceptual scores, %", "interaction",
               "The share of the score that is lost when the modality is permuted among the test items.",
               ("interaction",), by_modality("perceptual", "value")),
        Column("gate", "gate", "interaction",
               "What the row loses when a modality comes from an item of another group (incongruent input; Elliott "
               "2018), its own item being right; a check mark where the 95 % interval, seeds crossed with groups, is "
               "above zero and p below .05: that modality is used. Two partners an item.",
               ("interaction",), gate),
    ]  # fmt: skip


def _robustness(summary: Mapping[str, Any]) -> list[Column]:
    def kept(kind: str) -> Callable[[Row], Cell]:
        def cell(row: Row) -> Cell:
            curves = (row.get("robustness") or {}).get(kind) or {}
            retentions = {target: c["retention"] for target, c in curves.items() if c.get("retention") is not None}
            single = {target: v for target, v in retentions.items() if target != "all"} or retentions
            if not single:
                return Cell()
            worst = min(sorted(single), key=lambda target: single[target])
            return Cell(f"{_percent(single[worst])} ({worst})", single[worst])

        return cell

    def drop(row: Row) -> Cell:
        cell = (row.get("robustness") or {}).get("worst_drop")
        if not cell or cell.get("value") is None:
            return Cell()
        return Cell(f"{value(summary, cell['value'])} ({cell['modality']})", cell["value"])

    def harmful(row: Row) -> Cell:
        cell = row.get("robustness")
        if not cell or cell.get("harmful") is None or len(row["streams"]) < 2:
            return Cell()
        return Cell(", ".join(cell["harmful"]) or "none", len(cell["harmful"]))

    def regime(row: Row) -> Cell:
        rate = row.get("modality_dropout") or 0.0
        return Cell(f"dropout {rate:g}" if rate else "clean", rate) if row.get("robustness") else Cell()

    return [
        Column("kept_missing", "kept, missing, %", "robustness",
               "Of what the row has above ignoring the input, the share kept on average as a growing "
               "share of the test items lose a modality; the worst modality, in brackets.",
               ("robustness",), kept("missing")),
        Column("kept_noise", "kept, noise, %", "robustness", "The same as a modality becomes noisier.", ("robustness",),
               kept("noise")),
        Column("regime", "trained", "robustness", "On all modalities (clean), or losing each at this rate (modality "
               "dropout).", ("modality_dropout",), regime),
        Column("worst_drop", "worst drop", "robustness", "What full noise on one modality costs; the worst one, in "
               "brackets.", ("robustness",), drop),
        Column("harmful", "harmful", "robustness",
               "Modalities whose full noise leaves the row below the best remaining "
               "single modality: then it would be better not to fuse them.", ("robustness",), harmful),
    ]  # fmt: skip


def _cost(name: str) -> Callable[[Row], Cell]:
    """A count; nothing is no cost that is known."""

    def cell(row: Row) -> Cell:
        number = (row.get("cost") or {}).get(name)
        number = row.get(name) if number is None else number
        return Cell(count(number), number) if number else Cell()

    return cell


def _setting(row: Row) -> Cell:
    if not (chosen := row.get("setting")):
        return Cell()
    values = [(name.removesuffix("_rate").replace("_", " "), chosen[name]) for name in chosen]
    parts = [f"{name} {v:.3g}" for name, v in values if name not in ("trial", "trials") and v is not None]
    return Cell(f"{chosen['trial']} of {chosen['trials']}: {', '.join(parts)}", chosen["trial"])


CALIBRATION = [
    Column("ece", "ECE", "calibration", "Expected calibration error in points (15 bins of equal mass), as trained. "
           "Biased upwards on few items; scores of an SVM are read as logits.", ("calibration",),
           _field("calibration.ece", _points)),
    Column("ece_equal_width", "ECE, equal width", "calibration", "The same with 15 bins of equal width, as most papers "
           "report it.", ("calibration",), _field("calibration.ece_equal_width", _points)),
    Column("ece_scaled", "ECE scaled", "calibration", "The same with a temperature fitted on validation.",
           ("calibration",), _field("calibration.ece_scaled", _points)),
]  # fmt: skip
COST = [
    Column("alc", "ALC", "data", "Area under the score against the logarithm of the number of training examples.",
           ("data_efficiency",), _field("data_efficiency.alc", _points)),
    Column("setting", "setting", "cost", "The trial that was best on validation, of how many, and its values; the "
           "first is the row as it was given, with its own dropout. Each row has as many trials.", ("setting",),
           _setting),
    Column("params", "params", "cost", "Trained parameters.", ("cost", "params"), _cost("params")),
    Column("params_fusion", "params, fusion", "cost", "Those of the fusion alone.", ("cost",), _cost("params_fusion")),
    Column("flops", "FLOPs", "cost", "Operations of one example's forward pass by formula (– not counted).",
           ("cost", "flops"), _cost("flops")),
    Column("flops_xla", "FLOPs, XLA", "cost", "The same as XLA counts them in the compiled program.", ("cost",),
           _cost("flops_xla")),
    Column("train_flops_xla", "FLOPs, step", "cost", "Of a training step, one example's share, as XLA counts them.",
           ("cost",), _cost("train_flops_xla")),
]  # fmt: skip


def _clock(timing: Mapping[str, Any]) -> list[Column]:
    def clock(name: str, digits: int) -> Callable[[Row], Cell]:
        show = _field(name, lambda number: f"{number:.{digits}f}")
        return lambda row: show(timing.get(row["name"]) or {})

    return [
        Column("step_ms", "ms/step", CLOCK, "Median time of a training step on the machine that ran it.", (),
               clock("step_ms", 2)),
        Column("compile_seconds", "compile, s", CLOCK, "Time to compile.", (), clock("compile_seconds", 1)),
        Column("peak_mb", "peak, MB", CLOCK, "Peak memory.", (), clock("peak_mb", 0)),
    ]  # fmt: skip
