"""Rows without networks: linear classifiers on features, and combinations of trained models' outputs."""

import dataclasses
import functools
import hashlib
import types
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from mmjax.datasets.base import Dataset
from mmjax.datasets.statistics import has_sequences, statistics
from mmjax.datasets.views import refit_splits
from mmjax.errors import UsageError
from mmjax.evaluation.protocol import ROLES
from mmjax.evaluation.scores import score
from mmjax.evaluation.store.schema import HELD_OUT
from mmjax.experiment.table import Matched, Member, Row, Table
from mmjax.extras import extra
from mmjax.fusion import decision
from mmjax.stream import Batch, by_index, target_items, where_mask
from mmjax.typing import Mapping

__all__ = [
    "chance_of_sides",
    "check_fits",
    "constants",
    "decide",
    "decision_rows",
    "linear_svm",
    "logistic",
    "matched_rows",
    "of_steps",
    "ridge",
    "stack",
    "statistics_rows",
    "with_baselines",
]

_STACKED: dict[str, tuple[decision.Stacking, np.ndarray]] = {}
NOTHING: Mapping[str, int] = types.MappingProxyType({})


def _design(batch: Batch) -> np.ndarray:
    """All features of an example side by side, zeros where an item is missing."""
    parts = [np.where(where_mask(s.mask, s.values), s.values, 0) for _, s in sorted(batch.streams.items())]
    return np.concatenate([part.reshape(batch.size, -1) for part in parts], axis=1).astype(np.float64)


def _scores(classifier: Any, features: np.ndarray, classes: int) -> np.ndarray:
    """Decision values ``[items, classes]``; classes absent from train get the lowest score."""
    values = classifier.decision_function(features)
    if values.ndim == 1:
        values = np.stack([-values / 2, values / 2], axis=1)
    scores = np.full((len(features), classes), values.min() - 1)
    scores[:, classifier.classes_] = values
    return scores


def _linear(
    make: Callable[[], Any], data: Dataset, refit: bool, components: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Validation scores of a fit on train; test scores of the same fit or, with ``refit``, of one on both splits."""
    with extra():
        from sklearn.compose import make_column_transformer
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

    steps, start = [], 0
    for name, stream in sorted(data.splits["train"].streams.items()):
        stop = start + int(np.prod(stream.values.shape[1:]))
        most = min(data.splits["train"].size, stop - start)
        whiten = [PCA(min(components[name], most), whiten=True, random_state=0)] if name in components else []
        steps.append((make_pipeline(StandardScaler(), *whiten), slice(start, stop)))
        start = stop
    scores = {}
    for split in HELD_OUT:
        splits = refit_splits(data).splits if refit and split == "test" else data.splits
        classifier = make_pipeline(make_column_transformer(*steps), make())
        classifier.fit(_design(splits["train"]), np.asarray(splits["train"].target))
        features, classes = _design(data.splits[split]), data.card.num_classes
        scores[split] = _scores(classifier, features, classes) if classes else classifier.predict(features)
    return scores


def linear_svm(
    data: Dataset, seed: int, members: Any, *, C: float, refit: bool = True, components: Mapping[str, int] = NOTHING
) -> dict[str, np.ndarray]:
    """Linear support vector machine on standardised features (scikit-learn's ``LinearSVC``), fixed ``C``.

    Args:
      refit: test scores come from a fit on train and validation; validation scores always from a fit on train.
      components: by modality, the number of whitened principal components that replace its features; at most the
        number of features and examples.
    """
    from sklearn.svm import LinearSVC

    return _linear(functools.partial(LinearSVC, C=C, max_iter=20_000, random_state=0), data, refit, components)


def logistic(
    data: Dataset, seed: int, members: Any, *, C: float, refit: bool = True, components: Mapping[str, int] = NOTHING
) -> dict[str, np.ndarray]:
    """Logistic regression on standardised features (scikit-learn), fixed ``C``; arguments as ``linear_svm``."""
    from sklearn.linear_model import LogisticRegression

    return _linear(functools.partial(LogisticRegression, C=C, max_iter=2_000), data, refit, components)


def ridge(
    data: Dataset, seed: int, members: Any, *, C: float, refit: bool = True, components: Mapping[str, int] = NOTHING
) -> dict[str, np.ndarray]:
    """Ridge regression of scores on standardised features (scikit-learn), penalty ``1 / C``; else as ``logistic``."""
    from sklearn.linear_model import Ridge

    return _linear(functools.partial(Ridge, alpha=1 / C), data, refit, components)


def decide(
    data: Dataset, seed: int, members: Mapping[str, Member], *, rule: Callable, prior: bool = False
) -> dict[str, np.ndarray]:
    """Combines the outputs of trained single-modality models by a rule of ``mmjax.fusion.decision``.

    Args:
      rule: ``(logits by member, presence by member) -> scores``.
      prior: whether the rule takes ``log_prior``, the class frequencies of train (add-one smoothing).
    """
    arguments: dict[str, Any] = {}
    if prior:
        train = data.splits["train"]
        counts = np.bincount(target_items(train), minlength=data.card.num_classes or 0) + 1.0
        arguments["log_prior"] = np.log(counts / counts.sum())
    return {split: of_steps(functools.partial(rule, **arguments), *_outputs(members, split)) for split in HELD_OUT}


def of_steps(rule: Callable, logits: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rule on logits ``[items, classes]``; of more axes, ``[items, steps, classes]``, on each step by itself."""
    shape = next(iter(logits.values())).shape
    if len(shape) < 3:
        return rule(logits, present)
    steps = int(np.prod(shape[1:-1]))
    flat = {name: values.reshape(-1, shape[-1]) for name, values in logits.items()}
    return rule(flat, {name: np.repeat(there, steps) for name, there in present.items()}).reshape(shape)


def stack(data: Dataset, seed: int, members: Mapping[str, Member]) -> dict[str, np.ndarray]:
    """Stacking (Wolpert 1992): weights fitted on the members' validation outputs, never on train.

    Test scores come from a fit on all of validation; validation scores are cross-fitted, each item by a fit on other
    groups, so they may select an epoch, a row or a temperature.
    """
    logits, present = _outputs(members, "validation")
    batch = data.splits["validation"]
    target, group = target_items(batch), by_index(batch.group, batch.index)
    # Cached: noise changes test alone, so a sweep repeats the same fit.
    parts = [np.ascontiguousarray(part) for _, part in sorted({**logits, " target": target, " group": group}.items())]
    parts += [np.ascontiguousarray(part) for _, part in sorted(present.items())]
    key = hashlib.sha256(repr(sorted(logits)).encode() + b"".join(part.tobytes() for part in parts)).hexdigest()
    fitted = _STACKED.get(key)
    if fitted is None:
        if len(_STACKED) > 200:
            _STACKED.clear()
        whole = decision.fit_stacking(logits, target, present)
        crossed = decision.cross_fit_stacking(logits, target, present, group=group)
        fitted = _STACKED[key] = whole, crossed  # one assignment: rows are analysed in threads
    return {"validation": fitted[1], "test": fitted[0](*_outputs(members, "test"))}


def decision_rows(members: Sequence[str], *, section: str = "", suffix: str = "", scores: bool = False) -> list[Row]:
    """The five ways of combining trained single-modality rows; only stacking fits anything, on validation.

    Args:
      scores: whether the data have scores instead of classes; scores have one way, their mean.
    """
    if scores:
        fit = functools.partial(decide, rule=decision.mean_of_scores)
        return [Row("mean of scores" + suffix, fit=fit, members=tuple(members), section=section, role="mean of logits")]
    rules: dict[str, Callable] = {
        "mean of logits": functools.partial(decide, rule=decision.mean_of_logits),
        "mean of probabilities": functools.partial(decide, rule=decision.mean_of_probabilities),
        "product": functools.partial(decide, rule=decision.product),
        "prior-corrected product": functools.partial(decide, rule=decision.prior_corrected_product, prior=True),
        "stacking": stack,
    }
    return [
        Row(
            name + suffix,
            fit=fit,
            members=tuple(members),
            section=section,
            role=name if name in ROLES else "",
            validation_scores="cross-fitted" if fit is stack else "held out",
        )
        for name, fit in rules.items()
    ]


def statistics_rows(
    streams: Sequence[str], *, C: float = 0.01, refit: bool = False, section: str = "", scores: bool = False
) -> list[Row]:
    """Logistic regression (of scores: ridge) on means, deviations and quantiles of the items (``statistics``), of each
    modality alone and of all. Networks on the sequences that score below it are too weak to judge fusion.

    Args:
      streams: all modalities of the table.
      C: inverse strength of the ridge.
      refit: as the table's ``Train.refit``, so that these rows see the same examples as its networks.
      scores: whether the data have scores instead of classes.
    """
    method, name = (ridge, "ridge") if scores else (logistic, "logistic")
    fit, several = functools.partial(method, C=C, refit=refit), len(streams) > 1
    return [
        Row(
            f"{name} on statistics of {'+'.join(names)}",
            fit=fit,
            streams=names,
            view=statistics,
            varies=False,
            section=section,
            role="linear" if names == tuple(streams) and several else "",
        )
        for names in [*((name,) for name in streams), *([tuple(streams)] if several else [])]
    ]


def with_baselines(table: Table, dataset: Dataset) -> Table:
    """The table with missing baselines for its kind of data.

    For sequences with a label per example these are ``statistics_rows``, unless a row has the role ``linear``; where
    items of one modality are sought among those of another there are none.

    Args:
      dataset: the table's, after its view.
    """
    added: list[Row] = []
    plain = next((row for row in table.rows if row.role == "concatenation"), None)
    asked = has_sequences(dataset) and not dataset.multi_label and score(dataset.card.primary_metric).alone
    if asked and not any(row.role == "linear" for row in table.rows):
        names = {row.name for row in table.rows}
        section = plain.section if plain else ""
        scores = not dataset.card.num_classes
        rows = statistics_rows(dataset.streams, refit=table.train.refit, section=section, scores=scores)
        added += [row for row in rows if row.name not in names]
    return dataclasses.replace(table, rows=[*table.rows, *added]) if added else table


def check_fits(rows: Sequence[Row], dataset: Dataset) -> None:
    """Passes if no row fits or combines classes where the data have scores or several labels.

    Raises:
      UsageError: names the row and its replacement.
    """
    if not isinstance(dataset.splits["train"].target, np.ndarray):
        _check_fits_of_parts(rows, dataset)
        return
    labels = dataset.multi_label
    if dataset.card.num_classes and not labels:
        return
    for row in rows:
        fit = row.fit.func if isinstance(row.fit, functools.partial) else row.fit
        of_classes = fit in (linear_svm, logistic, stack)
        if isinstance(row.fit, functools.partial) and fit is decide:
            allowed = decision.mean_of_logits if labels else decision.mean_of_scores
            of_classes = row.fit.keywords.get("rule") is not allowed
        if of_classes and labels:
            raise UsageError(
                f"row {row.name!r} is for one class an item, {dataset.card.name} has several labels: combine rows "
                "by the mean of their logits"
            )
        if of_classes:
            raise UsageError(
                f"row {row.name!r} is for classes, {dataset.card.name} has scores: combine rows by "
                "decision_rows(..., scores=True), and take ridge in place of a linear classifier"
            )


def _check_fits_of_parts(rows: Sequence[Row], dataset: Dataset) -> None:
    """``check_fits`` where the target is no array; a label per step is one class an item, all else is not."""
    if isinstance(target_items(dataset.splits["train"]), np.ndarray):
        return
    for row in rows:
        fit = row.fit.func if isinstance(row.fit, functools.partial) else row.fit
        prior = isinstance(row.fit, functools.partial) and row.fit.keywords.get("prior")
        if fit in (linear_svm, logistic, ridge, stack) or (fit is decide and prior):
            raise UsageError(
                f"row {row.name!r} is for one class or score an item, the target of {dataset.card.name} has several "
                "parts: combine rows by the mean of their logits or probabilities"
            )


def constants(dataset: Dataset) -> dict[str, float]:
    """The metric of constant predictions on test: of scores mean and median of train, of labels their shares of train
    as probabilities (a rare label is then never predicted, and its F1 is 0), and every label. Undefined metrics, as the
    correlation with a constant, are left out.
    """
    metric, train = score(dataset.card.primary_metric), dataset.splits["train"]
    several = metric.outputs == "vectors"
    scored = np.shape(train.target) == np.shape(train.index) and metric.outputs == "values"
    scored = scored or (several and np.shape(train.target)[:-1] == np.shape(train.index))
    if not dataset.multi_label and (dataset.card.num_classes or not scored):
        return {}
    seen, truth = (np.asarray(target_items(dataset.splits[split]), np.float64) for split in ("train", "test"))
    if scored:
        axis = 0 if several else None
        constant = {"mean of train": seen.mean(axis), "median of train": np.median(seen, axis)}
    else:
        share = seen.mean(0)
        logits = np.log(share + 1e-9) - np.log(1 - share + 1e-9)
        constant = {"share of each label of train": logits, "every label": np.ones(logits.shape)}
    values = {k: float(metric.of(np.broadcast_to(v, (1, *truth.shape)), truth)[0]) for k, v in constant.items()}
    return {name: value for name, value in values.items() if np.isfinite(value)}


def chance_of_sides(dataset: Dataset, draws: int = 20) -> float | None:
    """What random vectors reach on test, in the mean, where items of one side are sought among those of another; None
    of other metrics.
    """
    metric, test = score(dataset.card.primary_metric), dataset.splits["test"]
    if metric.alone:
        return None
    vectors = np.random.default_rng(0).normal(size=(draws, int((test.index >= 0).sum()), 2, 1, 8))
    return float(metric.of(vectors.astype(np.float32), target_items(test)).mean())


def matched_rows(
    build: Callable[[str, int], nn.Module],
    names: Sequence[str],
    *,
    like: str,
    suffix: str = ", as many parameters",
    **fields: Any,
) -> list[Row]:
    """Each modality alone with as many parameters as a fusion, to tell its gain from that of size.

    Args:
      build: ``(modality, width) -> network``.
      like: name of the fusion's row.
      fields: of the rows.
    """
    return [
        Row(
            name + suffix,
            model=Matched(functools.partial(build, name), like),
            streams=(name,),
            baseline=False,
            role="matched",
            **fields,
        )
        for name in names
    ]


def _outputs(members: Mapping[str, Member], split: str) -> tuple[dict, dict]:
    """Logits in float64 and presence, by member."""
    logits = {name: np.asarray(member.outputs[split], np.float64) for name, member in members.items()}
    return logits, {name: member.present[split] for name, member in members.items()}
