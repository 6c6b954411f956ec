"""Rows that are no networks, against scikit-learn used directly and against sums by hand."""

import dataclasses
import functools
import json
import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from mmjax import datasets, fusion
from mmjax.errors import UsageError
from mmjax.evaluation.measures.calibration import before_and_after, measure
from mmjax.evaluation.protocol import ROLES
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Member, Row, baselines, run_table
from mmjax.experiment.analyses import Measure
from mmjax.experiment.baselines import (
    chance_of_sides,
    constants,
    decide,
    decision_rows,
    linear_svm,
    logistic,
    matched_rows,
    ridge,
    stack,
    with_baselines,
)
from mmjax.experiment.data import row_data
from mmjax.fusion import decision
from mmjax.heads import RegressionHead
from mmjax.models import Multimodal
from mmjax.tasks import Regression
from mmjax.training import Train, warmup_cosine
from tests.experiment import small
from tests.experiment.quick import quickly


def features(batch):
    return np.concatenate([batch.streams[name].values[:, 0] for name in sorted(batch.streams)], axis=1)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (functools.partial(linear_svm, C=0.1), LinearSVC(C=0.1, max_iter=20_000, random_state=0)),
        (functools.partial(logistic, C=0.3), LogisticRegression(C=0.3, max_iter=2_000)),
    ],
)
def test_they_are_scikit_learn_on_standardised_features(ours, theirs, refit):
    """Validation is scored by a fit on train alone, test by one on both parts where it is refitted."""
    data = small.arrays()
    train, validation, test = (data.splits[name] for name in ("train", "validation", "test"))
    scores = ours(data, 0, {}, refit=refit)
    both = np.concatenate([features(train), features(validation)]), np.concatenate([train.target, validation.target])
    for split, (x, y) in {"validation": (features(train), train.target), "test": both}.items():
        x, y = (x, y) if refit or split == "validation" else (features(train), train.target)
        scaler = StandardScaler().fit(np.float64(x))
        expected = theirs.fit(scaler.transform(x), y).decision_function(scaler.transform(features(data.splits[split])))
        np.testing.assert_allclose(scores[split], expected, atol=1e-6)
    assert test.size == len(scores["test"])


def test_two_classes_give_two_scores_and_a_class_that_train_lacks_the_lowest():
    rng = np.random.default_rng(0)
    target = np.concatenate([np.tile([0, 2], 20), [0, 1, 2, 0, 1, 2]])
    split = np.repeat([0, 1, 2], [40, 3, 3])
    x = rng.normal(size=(46, 3)) + target[:, None]
    data = datasets.from_arrays({"x": x}, target, split=split)
    scores = logistic(data, 0, {}, C=1.0, refit=False)["test"]
    assert scores.shape == (3, 3) and (scores[:, 1] < scores[:, [0, 2]].min()).all()
    train = features(data.splits["train"])
    scaler = StandardScaler().fit(train)
    classifier = LogisticRegression(C=1.0).fit(scaler.transform(train), data.splits["train"].target)
    margin = classifier.decision_function(scaler.transform(features(data.splits["test"])))
    np.testing.assert_allclose(scores[:, 2] - scores[:, 0], margin, atol=1e-3)


def test_components_are_whitened_and_at_most_as_many_as_there_are():
    data = small.arrays()
    scores = logistic(data, 0, {}, C=1.0, refit=False, components={"left": 2, "right": 400})
    train, test = (features(data.splits[name]) for name in ("train", "test"))
    parts = []
    for part, count in ((slice(0, 4), 2), (slice(4, 8), 4)):  # left, right
        scaler = StandardScaler().fit(train[:, part])
        pca = PCA(count, whiten=True).fit(scaler.transform(train[:, part]))
        parts.append([pca.transform(scaler.transform(x[:, part])) for x in (train, test)])
    x, held_out = (np.concatenate(pair, axis=1) for pair in zip(*parts))
    expected = LogisticRegression(C=1.0, max_iter=2_000).fit(x, data.splits["train"].target).decision_function(held_out)
    np.testing.assert_allclose(scores["test"], expected, atol=1e-3)


def test_a_missing_item_counts_as_zeros_and_nothing_warns():
    base = small.arrays()
    left = np.concatenate([batch.streams["left"].values[:, 0] for batch in base.splits.values()])
    target = np.concatenate([batch.target for batch in base.splits.values()])
    there = np.arange(60) % 3 > 0
    holes = np.where(there[:, None], left, np.nan)
    split = np.repeat([0, 1, 2], 20)
    missing = datasets.from_arrays({"left": (holes[:, None], there[:, None])}, target, split=split)
    zeros = datasets.from_arrays({"left": np.where(there[:, None], left, 0)}, target, split=split)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ours in (linear_svm, logistic):
            np.testing.assert_array_equal(ours(missing, 0, {}, C=0.1)["test"], ours(zeros, 0, {}, C=0.1)["test"])


def member(seed, present=None):
    rng = np.random.default_rng(seed)
    present = np.ones(20, bool) if present is None else present
    splits = ("validation", "test")
    return Member({s: rng.normal(size=(20, 3)) for s in splits}, dict.fromkeys(splits, present))


def test_a_member_that_is_absent_does_not_vote():
    here = np.arange(20) % 2 == 0
    members = {"left": member(1), "right": member(2, here)}
    scores = decide(small.arrays(), 0, members, rule=decision.mean_of_logits)["test"]
    left, right = (members[name].outputs["test"] for name in ("left", "right"))
    np.testing.assert_allclose(scores, np.where(here[:, None], (left + right) / 2, left))


def test_the_prior_is_that_of_train_with_one_count_added():
    data, members = small.arrays(), {"left": member(1), "right": member(2)}
    counts = np.asarray([(data.splits["train"].target == c).sum() + 1 for c in range(3)])
    scores = decide(data, 0, members, rule=decision.prior_corrected_product, prior=True)["test"]
    logits = {name: m.outputs["test"] for name, m in members.items()}
    expected = decision.prior_corrected_product(logits, None, log_prior=np.log(counts / counts.sum()))
    np.testing.assert_allclose(scores, expected)


def test_stacking_is_fitted_on_validation_and_never_sees_train():
    data, members = small.arrays(), {"left": member(1), "right": member(2)}
    scores = stack(data, 0, members)
    spoilt = {**data.splits, "train": None, "test": data.splits["test"].replace(target=None)}
    blind = type(data)(data.card, spoilt, data.version, data.sha256, data.split_id)
    np.testing.assert_array_equal(stack(blind, 0, members)["test"], scores["test"])
    other = data.splits["validation"].replace(target=(data.splits["validation"].target + 1) % 3)
    moved = stack(type(data)(data.card, {**data.splits, "validation": other}, "", "", ""), 0, members)
    assert np.abs(moved["test"] - scores["test"]).max() > 1e-3


def test_the_temperature_of_a_stack_is_not_fitted_on_what_it_was_fitted_on():
    """On members that say nothing a fit to 60 items is sure of itself; what is measured on its own items agrees."""
    rng = np.random.default_rng(0)
    target, split = rng.integers(0, 12, 180), np.repeat([0, 1, 2], 60)
    data = datasets.from_arrays({"x": rng.normal(size=(180, 1))}, target, split=split)
    outputs = {name: {s: 3 * rng.normal(size=(60, 12)) for s in ("validation", "test")} for name in "ab"}
    members = {name: Member(of, dict.fromkeys(of, np.ones(60, bool))) for name, of in outputs.items()}
    scores = stack(data, 0, members)
    truth = {name: data.splits[name].target for name in scores}
    honest = before_and_after(scores, truth)
    logits = {name: of["validation"] for name, of in outputs.items()}
    own = decision.fit_stacking(logits, truth["validation"])(logits)
    flattered = before_and_after({"validation": own, "test": scores["test"]}, truth)
    assert flattered["nll_scaled"] > flattered["nll"] + 0.5  # what was done before
    assert honest["nll_scaled"] < honest["nll"] and honest["nll_scaled"] < flattered["nll_scaled"] - 1
    assert set(before_and_after(scores, truth, fitted=True)) == set(measure(scores["test"], truth["test"]))


def test_a_stack_is_fitted_once_for_the_same_validation_outputs(monkeypatch):
    """Under noise the same fit is asked for again and again; whatever it could depend on makes another one."""
    monkeypatch.setattr(baselines, "_STACKED", {})
    fits, fit = [], decision.fit_stacking
    monkeypatch.setattr(decision, "fit_stacking", lambda *given, **others: fits.append(given) or fit(*given, **others))
    data, members = small.arrays(), {"left": member(1), "right": member(2)}
    first = stack(data, 0, members)["test"]
    noisy = {k: Member({**m.outputs, "test": m.outputs["test"] + 1}, m.present) for k, m in members.items()}
    second = stack(data, 0, noisy)["test"]
    once = len(fits)
    assert once == 6 and (first != second).any()  # one of all, five to cross-fit
    np.testing.assert_array_equal(stack(data, 0, members)["test"], first)
    gone = {**members, "left": member(1, np.arange(20) > 3)}
    swapped = {"left": members["right"], "right": members["left"]}
    renamed = {"left": members["left"], "rigth": members["right"]}
    target = data.splits["validation"].replace(target=np.flip(data.splits["validation"].target))
    other = dataclasses.replace(data, splits={**data.splits, "validation": target})
    for count, (given, voters) in enumerate([(data, gone), (data, swapped), (data, renamed), (other, members)], 2):
        stack(given, 0, voters)
        assert len(fits) == count * once
    np.testing.assert_array_equal(stack(data, 0, members)["test"], first)
    assert len(fits) == 5 * once


def test_fits_that_are_kept_are_few(monkeypatch):
    monkeypatch.setattr(baselines, "_STACKED", {number: None for number in range(201)})
    stack(small.arrays(), 0, {"left": member(1), "right": member(2)})
    assert len(baselines._STACKED) == 1


def test_rows_have_their_roles():
    roles = {row.name: row.role for row in decision_rows(("left", "right"), suffix=" late")}
    assert {name: role for name, role in roles.items() if role} == {
        "mean of logits late": "mean of logits",
        "prior-corrected product late": "prior-corrected product",
    }
    assert set(roles.values()) - {""} <= set(ROLES)
    with pytest.raises(UsageError, match="'odd' has the role 'champion'; the roles are: single, matched"):
        Row("odd", fit=small.guess, role="champion")
    said = {row.name: row.validation_scores for row in decision_rows(("left", "right"))}
    assert said.pop("stacking") == "cross-fitted" and set(said.values()) == {"held out"}
    with pytest.raises(UsageError, match="validation_scores='odd' is none of held out, cross-fitted, fitted"):
        Row("odd", fit=small.guess, validation_scores="odd")
    for role in ROLES:
        assert Row("one", fit=small.guess, role=role).role == role


def test_matched_rows_are_a_modality_each_and_never_the_best_single_one():
    rows = matched_rows(small.alone, ("left", "right"), like="joined", suffix=", wide", section="s", notes="why")
    assert [row.name for row in rows] == ["left, wide", "right, wide"]
    assert [row.streams for row in rows] == [("left",), ("right",)]
    assert all((row.role, row.baseline, row.section, row.notes) == ("matched", False, "s", "why") for row in rows)
    for row in rows:
        assert row.model.like == "joined" and row.model.build(7) == small.alone(row.streams[0], 7)
    assert matched_rows(small.alone, ("left",), like="joined")[0].name == "left, as many parameters"


def test_the_decision_rows_name_their_members():
    rows = decision_rows(("left", "right"), suffix=" late", section="s")
    assert len({row.name for row in rows}) == 5 and all(row.name.endswith(" late") for row in rows)
    assert all(row.members == ("left", "right") and row.section == "s" for row in rows)


def sequences(items=60):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, items)
    streams = {name: rng.normal(size=(items, 5, 2)) + target[:, None, None] for name in ("a", "b")}
    return datasets.from_arrays(streams, target, split=np.repeat([0, 1, 2], items // 3))


def test_a_table_of_sequences_gets_a_linear_model_of_their_statistics():
    data, rows = sequences(), [Row("guess", fit=small.guess)]
    added = with_baselines(small.table(dataset=data, rows=rows), data).rows[1:]
    assert [row.name for row in added] == [f"logistic on statistics of {name}" for name in ("a", "b", "a+b")]
    assert [row.role for row in added] == ["", "", "linear"]
    assert [row.streams for row in added] == [("a",), ("b",), ("a", "b")]
    for row in added:
        viewed = row_data(data, row)
        np.testing.assert_array_equal(
            row.fit(viewed, 0, {})["test"], logistic(viewed, 0, {}, C=0.01, refit=False)["test"]
        )
        assert viewed.splits["train"].streams["a" if "a" in row.streams else "b"].values.shape == (20, 1, 40)
    table = small.table(dataset=data, rows=[*rows, Row("mine", fit=small.guess, role="linear")])
    assert with_baselines(table, data) is table  # it has one
    plain = small.table()
    assert with_baselines(plain, small.arrays()) is plain  # vectors are no sequences
    refit = small.table(dataset=data, rows=rows, train=dataclasses.replace(small.table().train, refit=True))
    row = with_baselines(refit, data).rows[-1]
    expected = logistic(row_data(data, row), 0, {}, C=0.01, refit=True)["test"]
    np.testing.assert_array_equal(row.fit(row_data(data, row), 0, {})["test"], expected)


def scores(items=90, **others):
    """Two sequences whose mean tells a score round 2000."""
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=items)
    streams = {name: rng.normal(size=(items, 4, 2)) + hidden[:, None, None] for name in ("a", "b")}
    split = np.repeat([0, 1, 2], items // 3)
    return datasets.from_arrays(streams, 2000 + 5 * hidden, split=split, name="levels", **others)


def test_ridge_is_scikit_learns_in_the_units_of_the_target():
    data = scores()
    flat = {name: batch.streams["a"].values.reshape(30, 8) for name, batch in data.splits.items()}
    alone = dataclasses.replace(
        data, splits={k: b.replace(streams={"a": b.streams["a"]}) for k, b in data.splits.items()}
    )
    scaler = StandardScaler().fit(flat["train"])
    expected = Ridge(alpha=2.0).fit(scaler.transform(flat["train"]), data.splits["train"].target)
    found = ridge(alone, 0, {}, C=0.5, refit=False)
    np.testing.assert_allclose(found["test"], expected.predict(scaler.transform(flat["test"])), rtol=1e-6)


def test_a_table_of_scores_has_its_constants_its_mean_of_members_and_r(tmp_path):
    data = scores()
    model = Multimodal({}, fusion.Concat(4), RegressionHead())
    rows = [
        *(Row(name, model=model, streams=(name,)) for name in ("a", "b")),
        *decision_rows(("a", "b"), scores=True),
        Row("joined", model=model, role="concatenation"),
    ]
    train = Train(epochs=40, batch_size=10, learning_rate=3e-2, schedule=warmup_cosine)
    table = small.table(dataset=data, rows=rows, task=Regression(), train=train, trials=1)
    with quickly(tmp_path / "compiled"):
        text = run_table(table, workdir=tmp_path, measure=Measure(noise="none", interactions="none"), say=[].append)
    summary = json.loads((tmp_path / "table.json").read_bytes())
    seen, truth = (data.splits[name].target.astype(np.float64) for name in ("train", "test"))
    known = {one["name"]: one["value"] for one in summary["known"]}
    assert known == pytest.approx({
        "mean of train": np.abs(truth - seen.mean()).mean(),
        "median of train": np.abs(truth - np.median(seen)).mean(),
    })  # fmt: skip
    rows = {row["name"]: row for row in summary["rows"]}
    assert all(row["mean"] < 0.7 * known["median of train"] for row in rows.values())  # two thousand is no obstacle
    assert {f"ridge on statistics of {name}" for name in ("a", "b", "a+b")} < set(rows)
    store = RecordStore(tmp_path)
    members = np.mean([store.logits(name, "test") for name in ("a", "b")], axis=0)
    np.testing.assert_allclose(store.logits("mean of scores", "test"), members, rtol=1e-6)
    np.testing.assert_allclose(
        rows["joined"]["metrics"]["pearson"],
        np.mean([np.corrcoef(one, truth)[0, 1] for one in store.logits("joined", "test")]), rtol=1e-4,
    )  # fmt: skip
    assert "* **r**: Pearson" in text and "| median of train" in text
    shown = rows["joined"]["metrics"]["pearson"]
    assert any(f"{shown:.3f}" in line for line in text.splitlines() if line.startswith("| joined"))


@pytest.mark.parametrize("name", ["mean of logits", "product", "stacking", "logistic", "linear_svm"])
def test_a_row_for_classes_is_refused_before_anything_is_trained(name, tmp_path):
    linear = {"logistic": logistic, "linear_svm": linear_svm}
    if name in linear:
        row = Row(name, fit=functools.partial(linear[name], C=1.0), streams=("a",))
    else:
        (row,) = (row for row in decision_rows(("a", "b")) if row.name == name)
    alone = [Row(one, fit=small.guess, streams=(one,)) for one in ("a", "b")]
    table = small.table(dataset=scores(), rows=[*alone, row], task=Regression())
    with pytest.raises(
        UsageError, match=f"row '{name}' is for classes, levels has scores: combine rows by decision_rows"
    ):
        run_table(table, workdir=tmp_path, say=[].append)
    assert not (tmp_path / "records.jsonl").exists()


def test_classes_have_no_constants():
    assert constants(small.arrays()) == {}


def test_it_runs_in_the_table_and_is_asked_for(tmp_path):
    table = small.table(dataset=sequences(), rows=[Row("guess", fit=small.guess)])
    text = run_table(table, workdir=tmp_path, say=[].append)
    assert "| logistic on statistics of a+b |" in text and "linear (" not in text.partition("\n| row")[0]
    summary = json.loads((tmp_path / "table.json").read_bytes())
    assert {row["name"] for row in summary["rows"] if row["single"]} == {f"logistic on statistics of {n}" for n in "ab"}
    part = run_table(table, workdir=tmp_path / "part", rows=["guess"], say=[].append)
    assert f"linear ({ROLES['linear']})" in part


def test_chance_of_two_sides_is_that_of_random_vectors():
    """Of 20 items one is among the first five with probability 1/4; a metric of one side has no such chance."""
    data = small.arrays()
    of = lambda name: dataclasses.replace(data, card=dataclasses.replace(data.card, primary_metric=name))  # noqa: E731
    assert chance_of_sides(of("recall@5_forward"), draws=300) == pytest.approx(0.25, abs=0.02)
    assert chance_of_sides(of("recall@5_forward")) == chance_of_sides(of("recall@5_forward"))
    assert chance_of_sides(of("accuracy")) is None
