"""Controls: which rows they are for, what is shuffled in them, and what an ensemble of one modality is."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from mmjax.evaluation.report.summary import summarise
from mmjax.evaluation.store.records import RecordStore
from mmjax.evaluation.store.schema import HELD_OUT, make_record
from mmjax.experiment import Member, Row, run_table
from mmjax.experiment.controls import control_rows, ensemble
from mmjax.experiment.identity import config_hash, table_config
from tests.experiment import small

DATA = small.arrays()
BOTH = ["left", "right"]
SUMMARY = {"higher_is_better": True, "primary": "accuracy"}


def table():
    """Fusions with and without a view of their own, one of another section, one that is no network."""
    return small.table(
        dataset=DATA,
        rows=[
            Row("left", fit=small.guess, streams=("left",), seeds=3),
            Row("right", fit=small.guess, streams=("right",)),
            Row("joined", model=small.model(), role="concatenation", notes="as it is"),
            Row("first", model=small.model()),
            Row("second", model=small.model(), view=small.doubled),
            Row("half", model=small.model(), streams=("right",), baseline=False),
            Row("vote", fit=small.guess),
            Row("elsewhere", model=small.model(), section="other"),
            Row("never", model=small.model()),
        ],
    )


VALIDATION = {"left": 0.6, "right": 0.5, "joined": 0.7, "first": 0.8, "second": 0.75, "half": 0.95, "vote": 0.9,
              "elsewhere": 0.99, "never": None}  # fmt: skip


def summary(higher_is_better=True, best="left", **changes):
    scores = {**VALIDATION, **changes}
    rows = [
        {"name": row.name, "status": "not run" if scores[row.name] is None else "done", "section": row.section,
         "streams": list(row.streams or BOTH), "best_single": row.name == best, "validation": scores[row.name],
         "role": row.role, "kind": "fit" if row.fit else "model"}
        for row in table().rows
    ]  # fmt: skip
    return SUMMARY | {"rows": rows, "higher_is_better": higher_is_better}


def test_where_no_modality_can_be_asked_alone_the_best_network_is_trained_on_strangers():
    of_two_sides = summary() | {"primary": "rsum"}
    (row,) = control_rows(table(), of_two_sides)
    assert (row.name, row.role, row.section) == ("elsewhere: right shuffled", "shuffled control", "other")
    seen = row.view(DATA).splits["train"].streams
    assert (seen["left"].values == DATA.splits["train"].streams["left"].values).all()
    assert (seen["right"].values != DATA.splits["train"].streams["right"].values).any()
    assert control_rows(table(), of_two_sides | {"rows": of_two_sides["rows"][:2]}) == []


def names(**changes):
    return [row.name for row in control_rows(table(), summary(**changes))]


def test_they_are_for_the_concatenation_and_the_fused_network_that_is_best_on_validation():
    assert names() == ["joined: right shuffled", "first: right shuffled", "2 models of left"]
    assert names(second=0.81) == ["joined: right shuffled", "second: right shuffled", "2 models of left"]
    assert names(first=None, second=None) == ["joined: right shuffled", "2 models of left"]
    assert names(best="right") == ["joined: left shuffled", "first: left shuffled", "2 models of right"]
    # Of errors the lowest is best.
    assert names(higher_is_better=False)[1] == "second: right shuffled"


@pytest.mark.parametrize(("others", "said"), [("bc", "b and c"), ("bcd", "all but a")])
def test_many_modalities_are_named_by_the_one_that_stays(others, said):
    streams = ("a", *others)
    rows = [Row(name, fit=small.guess, streams=(name,)) for name in streams]
    rows += [Row("joined", model=small.model(), streams=streams, role="concatenation")]
    cells = [{"name": row.name, "status": "done", "section": "", "streams": list(row.streams), "validation": 0.5,
              "best_single": row.name == "a"} for row in rows]  # fmt: skip
    controls = control_rows(small.table(rows=rows), SUMMARY | {"rows": cells})
    assert [row.name for row in controls] == [f"joined: {said} shuffled", f"{len(streams)} models of a"]


def test_more_models_of_a_fit_that_is_always_the_same_are_no_ensemble():
    fitted = [Row(f"logistic {name}", fit=small.guess, streams=(name,), varies=False) for name in BOTH]
    rows = [row for row in table().rows if row.name in ("left", "right", "joined")] + fitted
    validation = {"left": 0.5, "right": 0.6, "joined": 0.7, "logistic left": 0.65, "logistic right": 0.4}

    def ensembles(rows):
        cells = [{"name": row.name, "status": "done", "section": "", "streams": list(row.streams or BOTH), "single":
                  row.streams is not None, "validation": validation[row.name], "role": row.role, "kind": "fit",
                  "best_single": row.name == "logistic left"} for row in rows]  # fmt: skip
        controls = control_rows(small.table(dataset=DATA, rows=rows), SUMMARY | {"rows": cells})
        assert controls[0].name == "joined: right shuffled"
        return controls[-1].name, controls[-1].streams, controls[-1].members

    assert ensembles(rows) == ("2 models of right", ("right",), ("right",))
    assert ensembles(rows[2:]) == ("2 models of logistic left", ("left",), ("logistic left",))


def test_without_a_concatenation_or_a_best_modality_of_its_own_there_are_none():
    assert names(joined=None) == [] and names(best=None) == []
    done = summary()
    for row in done["rows"]:
        row["streams"] = ["right"] if row["name"] == "joined" else row["streams"]
    assert control_rows(table(), done) == []  # the best modality is none of the concatenation's


def test_their_fields_are_those_of_the_row_but_for_what_it_stands_beside():
    plain, best, together = control_rows(table(), summary())
    joined = table().pick(["joined"])[0]
    assert (plain.model, plain.train, plain.streams) == (joined.model, joined.train, joined.streams)
    assert (plain.role, plain.paper, plain.notes, best.role) == ("shuffled control", None, "", "shuffled control")
    assert (together.role, together.members, together.streams) == ("ensemble control", ("left",), ("left",))
    assert together.seeds == 3 and not together.baseline  # as many seeds as the row whose models it takes


@pytest.mark.parametrize("second", [0.7, 0.9])
def test_train_and_validation_are_shuffled_and_test_is_not(second):
    """And the row's own view comes after."""
    row = control_rows(table(), summary(second=second))[1]
    factor = 2 if second == 0.9 else 1
    data = row.view(DATA)
    for split in ("train", "validation"):
        before, after = DATA.splits[split], data.splits[split]
        np.testing.assert_array_equal(after.streams["left"].values, factor * before.streams["left"].values)
        right, shuffled = (batch.streams["right"].values[:, 0] for batch in (before, after))
        assert (shuffled != factor * right).any(-1).mean() > 0.5
        np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(factor * right, axis=0))
        np.testing.assert_array_equal(after.target, before.target)
    for name in BOTH:
        np.testing.assert_array_equal(
            data.splits["test"].streams[name].values, factor * DATA.splits["test"].streams[name].values
        )


def test_the_control_is_another_row_to_the_records():
    """Of another modality shuffled, another configuration; of the same, the same again."""

    def hashes(best):
        rows = control_rows(table(), summary(best=best))
        return [config_hash(small.table(dataset=DATA, rows=[*table().rows, row]), row, DATA) for row in rows]

    own = {config_hash(table(), row, DATA) for row in table().rows}
    assert len({*hashes("left"), *hashes("right")} - own) == 6 and hashes("left") == hashes("left")


def fill(store, given, share):
    """Records of every row but the last; of validation and test it gets these shares right."""
    hashes = {row.name: config_hash(given, row, DATA) for row in given.rows}
    store.write_config(table_config("small", given, DATA, hashes))
    targets = {k: DATA.splits[k].target for k in HELD_OUT}
    store.write_targets({k: {"target": v, "group": np.arange(20)} for k, v in targets.items()})
    for row in given.rows[:-1]:
        seeds = range(row.seeds or given.seeds)
        logits = {}
        for split, target in targets.items():
            said = np.where(np.arange(20) < 20 * share[split][row.name], target, (target + 1) % 3)
            logits[split] = np.tile(np.eye(3, dtype=np.float32)[said], (len(seeds), 1, 1))
        records = [
            make_record(
                row=row.name, streams=[], dataset={}, method={"config_hash": hashes[row.name]}, seed=seed, epoch=None,
                selection_rule="", test_selected=None, primary="accuracy", metrics={"accuracy": 0.0},
                validation_metrics={}, cost={}, env={},
            )
            for seed in seeds
        ]  # fmt: skip
        store.write_row(row.name, records, logits, {})


def test_whatever_test_says_the_choice_is_the_same(tmp_path):
    scores = {name: value for name, value in VALIDATION.items() if value is not None}
    shuffled = dict(zip(scores, reversed(scores.values())))
    chosen = []
    for place, test in enumerate((scores, shuffled, {name: 1 - value for name, value in scores.items()})):
        store = RecordStore(tmp_path / str(place))
        fill(store, table(), {"validation": scores, "test": test})
        chosen.append([row.name for row in control_rows(table(), summarise(store.workdir))])
    assert chosen == [["joined: right shuffled", "first: right shuffled", "2 models of left"]] * 3
    store = RecordStore(tmp_path / "other")
    fill(store, table(), {"validation": {**scores, "second": 1.0, "right": 0.65}, "test": scores})
    assert [row.name for row in control_rows(table(), summarise(store.workdir))] == [
        "joined: left shuffled",
        "second: left shuffled",
        "2 models of right",
    ]


def runs(count=3):
    rng = np.random.default_rng(0)
    return tuple({split: rng.normal(size=(5, 3)) for split in HELD_OUT} for _ in range(count))


def member(made, first=0):
    there = np.asarray([True, True, True, True, False])
    made = made[first:] + made[:first]
    return Member(made[0], dict.fromkeys(HELD_OUT, there), made)


def mean_by_hand(made, split="test"):
    """Log of the mean of the probabilities; uniform where there is nothing to see."""
    found = logsumexp([log_softmax(run[split], axis=-1) for run in made], axis=0) - np.log(len(made))
    found[4] = np.log(1 / 3)
    return found


def test_an_ensemble_of_one_is_the_model_itself():
    for first in range(3):
        scores = ensemble(DATA, first, {"left": member(runs(), first)}, count=1)
        for split in HELD_OUT:
            np.testing.assert_allclose(scores[split], mean_by_hand(runs()[first : first + 1], split), atol=1e-12)
            np.testing.assert_array_equal(scores[split][:4].argmax(-1), runs()[first][split][:4].argmax(-1))


def test_an_ensemble_of_all_seeds_is_their_mean_and_the_same_for_each():
    for count in (3, 7):  # there are no more models than seeds
        for first in range(3):
            scores = ensemble(DATA, first, {"left": member(runs(), first)}, count=count)["test"]
            np.testing.assert_allclose(scores, mean_by_hand(runs()), atol=1e-12)


def test_an_ensemble_of_labels_is_the_mean_of_their_logits():
    card = dataclasses.replace(DATA.card, primary_metric="labels_exact")
    found = ensemble(dataclasses.replace(DATA, card=card), 0, {"left": member(runs(), 0)}, count=2)["test"]
    expected = np.mean([run["test"] for run in runs()[:2]], axis=0)
    present = member(runs(), 0).present["test"]
    np.testing.assert_allclose(found[present], expected[present])
    assert (found > 0).any()  # a yes, which the log of a probability never is


def test_a_run_takes_this_seed_and_the_next_ones_in_a_circle(tmp_path, monkeypatch):
    monkeypatch.setattr("mmjax.evaluation.report.plots.write_plots", lambda *arguments: {})
    pair = Row("pair", fit=functools.partial(ensemble, count=2), members=("guess",), role="ensemble control")
    given = small.table(dataset=DATA, rows=[Row("guess", fit=small.guess), pair], seeds=3)
    run_table(given, name="small", workdir=tmp_path, say=[].append)
    store = RecordStore(tmp_path)
    for split in HELD_OUT:
        single = log_softmax(store.logits("guess", split), axis=-1)
        together = [logsumexp([single[i], single[(i + 1) % 3]], axis=0) - np.log(2) for i in range(3)]
        np.testing.assert_allclose(store.logits("pair", split), together, atol=1e-5)
