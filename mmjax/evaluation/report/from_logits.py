"""The report of logits that were made elsewhere: a NumPy file is enough, nothing of mmjax's training is used.

Three lines, for a file that ``numpy.savez`` wrote with arrays ``target/validation``, ``target/test`` and, for each
model, ``NAME/validation`` and ``NAME/test``::

    from mmjax.evaluation import report_logits
    streams = {"text": ("text",), "audio": ("audio",)}  # the models that see one modality only
    print(report_logits("my_report", "logits.npz", streams=streams))
"""

import hashlib
import itertools
import os
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

import mmjax
from mmjax.errors import UsageError
from mmjax.evaluation.measures import calibration
from mmjax.evaluation.protocol import ROLES
from mmjax.evaluation.report.write import write_report
from mmjax.evaluation.scores import OUTPUTS, Score, score, scores
from mmjax.evaluation.scores.classes import right
from mmjax.evaluation.store.records import RecordStore
from mmjax.evaluation.store.schema import HELD_OUT, make_record
from mmjax.files import DamagedFile, read_npz
from mmjax.typing import Mapping

__all__ = ["report_logits"]

Splits = Mapping[str, Any]
NO_SINGLE = "No single modality is among the rows (streams={row: (modality,)}), so there are no gains over one."


def report_logits(
    workdir: str | os.PathLike,
    logits: Mapping[str, Splits] | str | os.PathLike,
    target: Splits | None = None,
    *,
    streams: Mapping[str, Sequence[str]] | None = None,
    group: Splits | None = None,
    presence: Mapping[str, Mapping[str, Any]] | None = None,
    roles: Mapping[str, str] | None = None,
    cost: Mapping[str, Mapping[str, float]] | None = None,
    primary: str = "accuracy",
    title: str = "",
    dataset: str = "own data",
    group_name: str = "group",
    selection_rule: str = "not stated",
) -> str:
    """Writes the report of a user's own logits into ``workdir`` and returns it, as ``write_report`` does.

    Args:
      workdir: an empty folder, or one of an earlier call.
      logits: ``{row: {"validation": logits, "test": logits}}``, each ``[seeds, items, classes]`` or, of one seed,
        ``[items, classes]``; of a metric of numbers ``[seeds, items]`` or ``[items]``, of labels ``[seeds, items,
        labels]`` or ``[items, labels]``. Or the path of an
        ``.npz`` with arrays ``ROW/validation``, ``ROW/test``, ``target/validation``, ``target/test`` and optionally
        ``group/validation``, ``group/test`` and ``ROW/presence/PATTERN``. Seeds of different rows belong together.
      target: ``{"validation": [items], "test": [items]}``: numbers of classes from 0, or scores; of labels
        ``[items, labels]`` of 0 and 1.
      streams: the modalities that a row sees; a row that is not named sees all. Rows with one are single modalities.
      group: as ``target``, the group of each item (its video, speaker); None = each item is its own.
      presence: test logits by row and pattern of presence, ``{row: {"text": logits, "audio": logits}}``; names joined
        by ``+``, every subset of the row's modalities but the empty and the full one.
      roles: what rows stand for in the protocol (``mmjax.evaluation.protocol.ROLES``) where their name does not say it.
      cost: ``{row: {"params": number, "flops": of one example's forward pass}}``.
      primary: a metric of ``mmjax.evaluation.scores``, by its name: ``accuracy``, ``f1_macro``, ``mae``, ``pearson``,
        ``labels_f1_micro`` ..., or one that was added there by ``register``.
      title: of the report.
      dataset: name of the data.
      group_name: what a group is.
      selection_rule: how the epochs were chosen.

    Raises:
      UsageError: in one line, an array that is missing, of a wrong shape or not finite, or a name that is not known.
    """
    if isinstance(logits, (str, os.PathLike)):
        logits, target, group, presence = _load(logits, target, group, presence)
    metric = score(primary)
    if metric.outputs in ("tokens", "other"):
        fitting = ", ".join(name for name, one in scores().items() if one.outputs not in ("tokens", "other"))
        raise UsageError(
            f"a report from logits has one class, number or set of labels an item: {primary!r} is none of {fitting}"
        )
    truth = _truth(target, group, metric)
    if not logits:
        raise UsageError("no logits: give {row: {'validation': array, 'test': array}} of at least one row")
    outputs = {row: {k: _array(row, splits, k, truth, metric) for k in HELD_OUT} for row, splits in logits.items()}
    _check_shapes(outputs)
    named = {row: tuple(names) for row, names in (streams or {}).items()}
    for label, by_row in (("streams", named), ("roles", roles), ("cost", cost), ("presence", presence)):
        if wrong := sorted(set(by_row or ()) - set(outputs)):
            raise UsageError(f"{label} names the row {wrong[0]!r}; the rows are {', '.join(outputs)}")
    if wrong := sorted(set((roles or {}).values()) - set(ROLES)):
        raise UsageError(f"{wrong[0]!r} is no role; the roles are {', '.join(ROLES)}")
    every = sorted({name for names in named.values() for name in names})
    if len(every) == 1 and set(named) != set(outputs):
        unnamed = next(row for row in outputs if row not in named)
        raise UsageError(f"streams knows one modality, {every[0]!r}; say also which ones row {unnamed!r} sees")
    rows = [_row(name, splits, named.get(name, every), roles or {}) for name, splits in outputs.items()]
    alone = any(row["single"] for row in rows)
    config = {
        "table": dataset,
        "own": True,
        "title": title or dataset,
        "note": "" if alone else NO_SINGLE,
        "dataset": {
            "name": dataset,
            "version": "",
            "sha256": _digest([part for one in truth.values() for part in one.values()]),
            "split_id": "",
            "card": {"name": dataset, "group": group_name, "groups_cross": False},
        },
        "primary": primary,
        "metric": primary,
        "streams": every or ["a single modality"],  # which the protocol then says is lacking
        **_baselines(truth, outputs, metric),
        "seeds": list(range(max(len(splits["test"]) for splits in outputs.values()))),
        "rows": rows,
        "references": [],
    }
    store = RecordStore(workdir)
    _claim(store)
    patterns = {row["name"]: _patterns(row, presence or {}, outputs, truth, metric) for row in rows}
    store.write_config(config)
    store.write_targets(truth)
    for row in rows:
        name = row["name"]
        price = {"params": None, "flops": None, **(cost or {}).get(name, {})}
        store.write_row(
            name, _records(row, config, outputs[name], truth, price, selection_rule, metric), outputs[name], {}
        )
        if patterns[name]:
            digest = {"config_hash": row["config_hash"], "seeds": list(range(len(outputs[name]["test"])))}
            store.write_analysis(name, digest, patterns[name])
    return write_report(workdir)


def _load(
    path: str | os.PathLike, target: Splits | None, group: Splits | None, presence: Mapping[str, Any] | None
) -> tuple[dict[str, dict], Splits | None, Splits | None, Mapping[str, Any] | None]:
    """The parts of a file by their names; what is given beside it goes first."""
    try:
        arrays = read_npz(path)
    except FileNotFoundError:
        raise UsageError(f"no file {str(path)!r}") from None
    except DamagedFile as error:
        raise UsageError(f"{str(path)!r} is no .npz of plain arrays ({error.why}); write it with numpy.savez") from None
    rows: dict[str, dict] = {}
    patterns: dict[str, dict] = {}
    for name, values in arrays.items():
        row, slash, last = name.rpartition("/")
        if row.endswith("/presence"):
            patterns.setdefault(row.removesuffix("/presence"), {})[last] = values
        elif slash and last in HELD_OUT:
            rows.setdefault(row, {})[last] = values
        else:
            raise UsageError(
                f"array {name!r} of {str(path)!r} is none of ROW/validation, ROW/test, ROW/presence/PATTERN"
            )
    held = {name: rows.pop(name, None) for name in ("target", "group")}
    return rows, target or held["target"], group or held["group"], presence or patterns


def _truth(target: Splits | None, group: Splits | None, metric: Score) -> dict[str, dict[str, np.ndarray]]:
    """Target and group of each item, checked."""
    truth = {}
    for split in HELD_OUT:
        if target is None or split not in target:
            raise UsageError(f"no target of {split}: give target={{'validation': [items], 'test': [items]}}")
        values = np.asarray(target[split])
        labels = metric.outputs == "labels"
        if values.ndim != OUTPUTS[metric.outputs][1] or not values.size:
            several = {"labels": "[items, labels], 0 or 1 each", "vectors": "[items, scores]"}
            form = several.get(metric.outputs, "[items], one value an item")
            raise UsageError(f"target of {split} must be {form}; got {values.shape}")
        if labels and not np.isin(values, (0, 1)).all():
            raise UsageError(
                f"target of {split} must be 0 or 1 for each label; got {values[~np.isin(values, (0, 1))][0]}"
            )
        if metric.outputs == "classes" and (not np.issubdtype(values.dtype, np.integer) or values.min() < 0):
            raise UsageError(
                f"target of {split} must be numbers of classes from 0, integers; got {values.dtype} {values}"
            )
        if not np.isfinite(values).all():
            raise UsageError(f"target of {split} holds NaN or infinity")
        groups = np.arange(len(values)) if group is None or split not in group else np.asarray(group[split])
        if groups.shape != values.shape[:1]:
            raise UsageError(f"group of {split} must be [items] as its target {values.shape}, got {groups.shape}")
        truth[split] = {"target": values, "group": groups}
    return truth


def _array(row: str, splits: Splits, split: str, truth: Mapping[str, Mapping], metric: Score) -> np.ndarray:
    """``[seeds, items, classes]`` (numbers: ``[seeds, items]``, labels: ``[seeds, items, labels]``), checked."""
    if not isinstance(splits, Mapping) or split not in splits:
        raise UsageError(f"row {row!r} has no logits of {split}; a row needs both validation and test")
    values = np.asarray(splits[split])
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise UsageError(f"row {row!r}: logits of {split} must be numbers, got {values.dtype}")
    dims, items = OUTPUTS[metric.outputs][0], len(truth[split]["target"])
    last = ("scores" if metric.outputs == "vectors" else metric.outputs) if dims == 3 else ""
    shape = f"[seeds, items, {last}] or [items, {last}]" if last else "[seeds, items] or [items]"
    original = values.shape
    values = values[None] if values.ndim == dims - 1 else values
    if values.ndim != dims or not values.size or values.shape[1] != items:
        raise UsageError(f"row {row!r}: {split} must be {shape} with {items} items as the target, got {original}")
    if np.isnan(values).any() or (np.isposinf(values) if metric.outputs == "classes" else np.isinf(values)).any():
        bad = int((~np.isfinite(values)).sum())
        raise UsageError(f"row {row!r}: {split} holds NaN or infinity ({bad} of {values.size} values)")
    if metric.outputs in ("labels", "vectors") and values.shape[1:] != truth[split]["target"].shape:
        of_target = truth[split]["target"].shape
        raise UsageError(f"row {row!r}: {split} has {values.shape[2]} {last}, its target is {of_target}")
    if metric.outputs == "classes" and truth[split]["target"].max() >= values.shape[2]:
        largest = int(truth[split]["target"].max())
        raise UsageError(f"row {row!r}: {split} has {values.shape[2]} classes, its target names class {largest}")
    if metric.outputs == "classes" and values.min() >= 0 and np.allclose(values.sum(-1), 1, atol=1e-3):
        raise UsageError(
            f"row {row!r}: {split} holds probabilities (from 0 up, they sum to 1): give logits, or their logarithm"
        )
    return values.astype(np.float32)


def _check_shapes(outputs: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """As many seeds on both splits, the same classes everywhere."""
    first = next(iter(outputs.values()))["test"]
    for row, splits in outputs.items():
        seeds = {split: len(values) for split, values in splits.items()}
        if len(set(seeds.values())) > 1:
            raise UsageError(f"row {row!r} has {seeds} seeds; both splits need the same ones, in the same order")
        for values in splits.values():
            if values.shape[2:] != first.shape[2:]:
                raise UsageError(f"row {row!r} has {values.shape[2]} classes, the first row {first.shape[2]}")


def _row(name: str, splits: Mapping[str, np.ndarray], names: Sequence[str], roles: Mapping[str, str]) -> dict[str, Any]:
    role = roles.get(name) or (name if name in ROLES and name not in ("single", "matched") else "")
    single = len(names) == 1 and role in ("", "single")
    return {
        "name": name,
        "section": "",
        "streams": list(names),
        "kind": "own",
        "role": "single" if single else role,
        "single": single,
        "paper": None,
        "extra": False,
        "seeds": list(range(len(splits["test"]))),
        "notes": "",
        "config_hash": _digest(splits.values()),
    }


def _baselines(truth: Mapping[str, Mapping], outputs: Mapping[str, Mapping], metric: Score) -> dict[str, Any]:
    """What ignoring the input reaches in shares of right answers; None of other metrics."""
    if metric.items is not right:
        return {"majority": None, "chance": None}
    labels = truth["test"]["target"]
    majority = float(np.bincount(labels).max() / len(labels))
    return {"majority": majority, "chance": 1 / next(iter(outputs.values()))["test"].shape[2]}


def _patterns(
    row: Mapping[str, Any], presence: Mapping[str, Mapping], outputs: Mapping, truth: Mapping, metric: Score
) -> dict[str, np.ndarray]:
    """Test logits of every pattern of presence; with nothing present, the frequencies of classes or labels on
    validation (of numbers their median)."""
    outputs_of = presence.get(row["name"])
    if not outputs_of:
        return {}
    names, test = sorted(row["streams"]), outputs[row["name"]]["test"]
    wanted = ["+".join(some) for n in range(1, len(names)) for some in itertools.combinations(names, n)]
    by_pattern = {"+".join(sorted(pattern.split("+"))): values for pattern, values in outputs_of.items()}
    by_pattern.pop("+".join(names), None)
    if set(by_pattern) != set(wanted):
        raise UsageError(
            f"presence of row {row['name']!r} needs {', '.join(wanted) or 'nothing'}; got {', '.join(by_pattern)}"
        )
    checked = {}
    for pattern, values in by_pattern.items():
        checked[pattern] = _array(f"{row['name']}, {pattern} present", {"test": values}, "test", truth, metric)
        if checked[pattern].shape != test.shape:
            raise UsageError(
                f"presence of row {row['name']!r}: {pattern} has {checked[pattern].shape}, its test logits {test.shape}"
            )
    labels = truth["validation"]["target"]
    if metric.outputs == "classes":
        nothing = np.log(np.bincount(labels, minlength=test.shape[2]) + 1.0)
    elif metric.outputs == "labels":
        nothing = np.log((labels.sum(0) + 1.0) / (len(labels) - labels.sum(0) + 1.0))
    else:
        nothing = np.median(labels, axis=0)
    checked |= {"+".join(names): test, "": np.broadcast_to(nothing, test.shape).astype(np.float32)}
    return {f"pattern/{pattern}": values for pattern, values in checked.items()}


def _records(
    row: Mapping[str, Any],
    config: Mapping[str, Any],
    outputs: Mapping[str, np.ndarray],
    truth: Mapping[str, Mapping],
    cost: Mapping[str, Any],
    selection_rule: str,
    metric: Score,
) -> list[Any]:
    data = {name: config["dataset"][name] for name in ("name", "version", "sha256", "split_id")}
    data |= {"n": len(truth["test"]["target"]), "group": config["dataset"]["card"]["group"]}
    method = {"name": row["name"], "config_hash": row["config_hash"], "params": cost["params"], "trials": None}
    labels = {split: truth[split]["target"] for split in HELD_OUT}
    return [
        make_record(
            row=row["name"],
            streams=row["streams"],
            dataset=data,
            method=method,
            seed=seed,
            selection_rule=selection_rule,
            epoch=None,
            test_selected=None,
            primary=config["primary"],
            metrics=_metrics(outputs["test"][seed], truth["test"]["target"], metric),
            validation_metrics=_metrics(outputs["validation"][seed], truth["validation"]["target"], metric),
            cost=cost,
            env={"mmjax": mmjax.__version__, "python": platform.python_version(), "numpy": np.__version__},
            notes="logits given by the user",
            calibration=calibration.before_and_after({k: outputs[k][seed] for k in HELD_OUT}, labels)
            if metric.outputs == "classes"
            else None,
        )
        for seed in range(len(outputs["test"]))
    ]


def _metrics(outputs: np.ndarray, target: np.ndarray, metric: Score) -> dict[str, float]:
    """The metric, and beside one of classes accuracy and the negative log-likelihood."""
    values = {metric.name: float(metric.of(outputs[None], target)[0])}
    if metric.outputs == "classes":
        values |= {"accuracy": float((outputs.argmax(-1) == target).mean()), "nll": calibration.nll(outputs, target)}
    return values


def _claim(store: RecordStore) -> None:
    """A folder of a trained table is never written over."""
    if (store.workdir / "config.json").is_file() and not store.config().get("own"):
        raise UsageError(f"{str(store.workdir)!r} is the work directory of a table; give an empty folder")


def _digest(arrays: Any) -> str:
    digest = hashlib.sha256()
    for values in arrays:
        values = np.ascontiguousarray(values)
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
