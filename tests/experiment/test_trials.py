"""A search over trials: what is chosen, on what, what stands in the records; killed, it ends with the same bytes."""

import dataclasses
import functools
import json

import numpy as np
import optax
import pytest

from mmjax.errors import UsageError
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, run_table, runner
from mmjax.experiment.analyses import Measure
from mmjax.experiment.baselines import logistic
from mmjax.experiment.controls import ensemble
from mmjax.experiment.trials import Search, describe_trials, fit_chosen, penalties, search_fit
from mmjax.resident import Prepared
from mmjax.search import draw_trials
from mmjax.training import Train
from tests.experiment import small
from tests.experiment.quick import quickly

NONE = Measure(noise="none", interactions="none")


class Killed(BaseException):
    """What no code of the package catches."""


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quickly(tmp_path_factory.mktemp("compiled")):
        yield


def table(**fields):
    rows = [
        Row("both", model=small.model()),
        Row("linear", fit=functools.partial(logistic, C=1.0, refit=False), varies=False),
        Row("guess", fit=small.guess),
        Row("pair", fit=functools.partial(ensemble, count=2), members=("both",)),
    ]
    return small.table(**{"rows": rows, "trials": 3, "seeds": 2, "train": Train(epochs=2, batch_size=8)} | fields)


def run(workdir, given=None, **arguments):
    lines = []
    run_table(given or table(), workdir=workdir, measure=NONE, say=lines.append, **arguments)
    return lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    run(workdir)
    return workdir


def methods(workdir, name):
    return [record["method"] for record in RecordStore(workdir).records(name)]


def test_the_records_hold_every_trial_and_the_choice(finished):
    store = RecordStore(finished)
    for method in methods(finished, "both"):
        assert method["trials"] == 3
        tried = method["search"]["trials"]
        assert method["search"]["metric"] == "loss" and method["search"]["seeds"] == [0, 1]
        assert [one["learning_rate"] for one in tried] == [1e-3, 1e-3, 0.000316228]
        assert [one["weight_decay"] for one in tried] == [1e-2, 1e-4, 1e-2]
        assert [one["dropout_rate"] for one in tried] == [None, 0.1, 0.2]
        best = int(np.argmin([one["validation"] for one in tried]))
        kept = {name: value for name, value in tried[best].items() if name != "validation"}
        assert method["choice"] == {"trial": best + 1, **kept}
    rule = store.records("both")[0]["selection_rule"]
    assert rule == "epoch of best validation loss; setting of best validation loss (mean of 2 seeds) among 3 trials"
    for method in methods(finished, "linear"):
        assert [one["C"] for one in method["search"]["trials"]] == [1.0, 1.0, 0.1]
        assert method["search"]["metric"] == "accuracy" and method["search"]["seeds"] == [0]
    for name in ("guess", "pair"):  # nothing to choose
        assert all(method["trials"] == 1 and "search" not in method for method in methods(finished, name))
    assert "search_seconds" in json.loads((finished / "timing.json").read_text())["both"]


def test_what_is_recorded_is_the_chosen_setting_trained_on_all_seeds(tmp_path):
    """The row as it was given learns too slowly, and the fourth trial is the best: set by hand, it scores the same."""
    hopeless = Train(
        epochs=3, batch_size=8, learning_rate=3e-4, optimizer=functools.partial(optax.adamw, weight_decay=0.0)
    )
    rows = [Row("both", model=small.model())]
    run(tmp_path / "searched", table(rows=rows, train=hopeless, trials=4, seeds=2))
    (method, _) = methods(tmp_path / "searched", "both")
    assert method["choice"] == {"trial": 4, "learning_rate": 0.000948683, "weight_decay": 0.0, "dropout_rate": 0.3}
    byhand = dataclasses.replace(hopeless, learning_rate=3e-4 * 10**0.5)
    model = small.model(dropout_rate=0.3)
    model = model.clone(head=model.head.clone(dropout_rate=0.3))
    run(tmp_path / "set", table(rows=[Row("both", model=model)], train=byhand, trials=1, seeds=2))
    ours, theirs = (RecordStore(tmp_path / place).logits("both", "test") for place in ("searched", "set"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_with_one_trial_everything_is_as_without_a_search(tmp_path):
    rows = [Row("both", model=small.model())]
    run(tmp_path / "one", table(rows=rows, trials=1))
    run(tmp_path / "none", dataclasses.replace(table(rows=rows), trials=1))
    assert "search" not in methods(tmp_path / "one", "both")[0] and methods(tmp_path / "one", "both")[0]["trials"] == 1


def test_another_number_of_trials_is_another_row(finished, tmp_path):
    lines = run(tmp_path)
    assert not any("done before" in line for line in lines)
    again = [line.partition("] ")[2] for line in run(tmp_path, table(trials=2)) if not line.endswith("\r")]
    assert {line.partition(":")[0] for line in again if "done before" in line} == {"guess"}  # it has no setting
    assert all("done before" in line for line in run(tmp_path, table(trials=2)) if line.startswith("["))


def test_a_search_that_is_killed_continues_to_the_same_bytes(finished, tmp_path, monkeypatch):
    train, seen = Prepared.run, []
    deaths = [(1, 0), (3, 1), (4, 1)]  # in the first part of the search, in the last, in the fit of the choice

    def dying(prepared, *, on_epoch, **others):
        part = seen[-1][0] + 1 if seen else 1
        seen.append((part, None))

        def once(number, metrics):
            on_epoch(number, metrics)
            if deaths and (part, number) == deaths[0]:
                deaths.pop(0)
                seen.clear()
                raise Killed

        return train(prepared, on_epoch=once, **others)

    monkeypatch.setattr(Prepared, "run", dying)
    for _ in range(3):
        with pytest.raises(Killed):
            run(tmp_path, snapshot_seconds=0.0)
    assert not deaths
    run(tmp_path, snapshot_seconds=0.0)
    for name in ("records.jsonl", "table.json", "table.md"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


class Programs:
    """Stands for the programs of a row with five seeds."""

    seeds, train = (0, 1, 2, 3, 4), Train(select="accuracy")

    def __init__(self, score, diverges=lambda factor, seed: False):
        self.score, self.diverges, self.calls = score, diverges, []

    def run(self, what, *, trials, seeds=None, strict):
        seeds = self.seeds if seeds is None else seeds
        self.calls.append((what, list(seeds), trials.learning_rate.tolist(), strict))
        pairs = list(zip(trials.learning_rate.tolist(), seeds))
        diverged = np.asarray([self.diverges(*pair) for pair in pairs])
        if strict and diverged.any():
            raise UsageError("not finite")
        history = {"validation/accuracy": np.asarray([[0.0] * 5, [self.score(*pair) for pair in pairs], [0.1] * 5])}
        return Found(history, np.ones(5, int), diverged)


@dataclasses.dataclass
class Found:
    history: dict
    epoch: np.ndarray
    diverged: np.ndarray


FACTORS = draw_trials(4).learning_rate.tolist()


def test_trials_are_compared_on_equal_seeds_and_the_best_is_trained_on_all():
    programs = Programs(lambda factor, seed: factor / 10 + seed / 100)
    fitted, search, trial = fit_chosen(programs, [{}] * 4, False, programs.run)
    # 4 trials x 2 seeds fill 1.6 programs of five seeds: two of them, the last one filled up
    assert [call[0] for call in programs.calls] == ["trials 1 of 2", "trials 2 of 2", "fit of trial 4"]
    pairs = [pair for _, seeds, factors, _ in programs.calls[:2] for pair in zip(factors, seeds)]
    assert pairs[:8] == [(factor, seed) for factor in FACTORS for seed in (0, 1)] and len(pairs) == 10
    assert search.seeds == (0, 1) and search.chosen == 3
    np.testing.assert_allclose(search.scores, [factor / 10 + 0.005 for factor in FACTORS], rtol=1e-6)
    assert programs.calls[-1][1:3] == ([0, 1, 2, 3, 4], [FACTORS[3]] * 5)
    assert trial.learning_rate.tolist() == [FACTORS[3]] * 5 and not fitted.diverged.any()
    assert [call[3] for call in programs.calls] == [False] * 3
    programs.calls.clear()  # 3 trials x 2 seeds leave room for a third seed
    assert fit_chosen(programs, [{}] * 3, False, programs.run)[1].seeds == (0, 1, 2)


def test_a_trial_that_diverges_is_out_and_one_that_diverges_later_gives_way():
    def score(factor, seed):
        return 0.9 if factor == FACTORS[3] else 0.8 if factor == FACTORS[2] else 0.5

    programs = Programs(score, lambda factor, seed: factor == FACTORS[3] and seed == 1)
    _, search, _ = fit_chosen(programs, [{}] * 4, False, programs.run)
    assert search.chosen == 2 and search.scores[3] is None
    programs = Programs(score, lambda factor, seed: factor == FACTORS[3] and seed == 4)  # no seed of the search
    _, search, _ = fit_chosen(programs, [{}] * 4, False, programs.run)
    assert [call[0] for call in programs.calls][-2:] == ["fit of trial 4", "fit of trial 3"]
    assert search.chosen == 2 and search.scores[3] is None
    programs = Programs(score, lambda factor, seed: True)
    with pytest.raises(UsageError, match="not finite"):
        fit_chosen(programs, [{}] * 4, False, programs.run)
    assert programs.calls[-1][0] == "fit of trial 1"  # as it was given: the error is that of no search


def test_equals_go_to_the_earlier_and_lower_may_be_better():
    of = functools.partial(Search.of, "loss", True, (0,), [{}] * 3)
    assert of(np.asarray([[0.3], [0.2], [0.2]])).chosen == 1
    assert of(np.asarray([[np.nan], [np.nan], [0.9]])).chosen == 2
    assert Search.of("accuracy", False, (0,), [{}] * 3, np.asarray([[0.3], [0.5], [0.5]])).chosen == 1


def test_what_a_network_does_not_have_is_not_tried():
    train, batch = Train(optimizer=optax.sgd, learning_rate=0.1), small.arrays().splits["train"]
    described = describe_trials(3, small.model(), train, batch)
    assert described[0] == {"learning_rate": 0.1, "dropout_rate": None} and "weight_decay" not in described[1]


def test_a_fit_is_tried_with_penalties_and_the_choice_is_by_validation_alone():
    assert penalties(small.guess, 5) == [({}, small.guess)]
    fits = penalties(functools.partial(logistic, C=0.01, refit=False), 4)
    assert [setting["C"] for setting, _ in fits] == [0.01, 0.01, 0.001, 0.1]

    def outputs(fit, seed):
        return {"validation": fit.keywords["C"], "test": None}

    search, fit = search_fit(fits, outputs, lambda c: -abs(c - 0.09), "accuracy", False, [0])
    assert search.chosen == 3 and fit.keywords["C"] == 0.1 and fit.keywords["refit"] is False


def test_a_wrong_number_of_trials_is_refused():
    with pytest.raises(UsageError, match="trials of the table must be at least 1, got 0"):
        table(trials=0)
    with pytest.raises(UsageError, match="trials of row 'both' must be at least 1, got -1"):
        table(rows=[Row("both", model=small.model(), trials=-1)])
    assert runner.smoke(table(trials=7)).trials == 2 and runner.smoke(table(trials=1)).trials == 1
