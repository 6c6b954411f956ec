"""What is measured of trained rows: each array against the models themselves, the same twice, and never in vain."""

import dataclasses
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import datasets, fusion
from mmjax.checkpoint import import_params
from mmjax.datasets import views
from mmjax.errors import UsageError
from mmjax.evaluation.measures.noise import default_noises
from mmjax.evaluation.measures.robustness import corrupted
from mmjax.evaluation.scores import score
from mmjax.evaluation.store.records import RecordStore
from mmjax.experiment import Row, analyses, run_table
from mmjax.experiment import noise_sweep as sweep_module
from mmjax.experiment.analyses import Measure
from mmjax.experiment.baselines import decision_rows
from mmjax.experiment.checks import abstract_variables
from mmjax.experiment.noise_sweep import draws_of_seed
from mmjax.experiment.settings import apply_settings
from mmjax.fusion import decision
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal, PerStep
from tests.experiment import small
from tests.experiment.quick import quickly

right = score("accuracy").per_item

MEASURE = Measure(levels=2, draws=2, seeds=1)
TABLE = small.conforming()
DATA = TABLE.dataset
TEST = DATA.splits["test"]
SINGLE = ("left", "right", "left, as many parameters", "right, as many parameters")
VOTES = ("mean of logits", "mean of probabilities", "product", "prior-corrected product", "stacking")


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    with quickly(tmp_path_factory.mktemp("compiled")):
        yield


def run(workdir, table=TABLE, measure=MEASURE, **arguments):
    lines = []
    run_table(table, name="small", workdir=workdir, measure=measure, say=lines.append, **arguments)
    return lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    run(workdir)
    return workdir


@pytest.fixture(scope="module")
def rows(finished):
    return {row["name"]: row for row in json.loads((finished / "table.json").read_bytes())["rows"]}


@pytest.fixture
def copy(finished, tmp_path):
    """The finished work directory once more, to be changed."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def found(workdir, name):
    return RecordStore(workdir).analysis(name)[1]


def measured_files(workdir):
    return {path.name: path.read_bytes() for path in (workdir / "analysis").iterdir()}


def variables_of(workdir, name, table=TABLE):
    """Model and trained variables of a row, read from its file."""
    config = {row["name"]: row for row in RecordStore(workdir).config()["rows"]}
    model, train = table.pick([name])[0].model, table.dataset.splits["train"]
    streams = {k: train.streams[k] for k in config[name]["streams"]}
    data = types.SimpleNamespace(splits={"train": train.replace(streams=streams)})
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape), a.dtype), abstract_variables(model, data))
    path = workdir / "checkpoints" / f"{config[name]['config_hash']}.safetensors"
    return jax.vmap(lambda v, s: model.apply(v, s), (0, None)), import_params(path, like)


def test_every_network_and_every_vote_is_measured(finished, rows):
    assert all(row["status"] == "done" for row in rows.values())
    controls = [row["name"] for row in rows.values() if row["role"] in ("shuffled control", "ensemble control")]
    assert len(controls) == 3 and set(rows) == {*SINGLE, *VOTES, "joined", "doubled", *controls}
    for name, row in rows.items():
        arrays = found(finished, name)
        several = len(row["streams"]) > 1
        patterns = ["left+right", "left", "right", ""] if several else [*row["streams"], ""]
        targets = ["left", "right", "all"] if several else [*row["streams"], "all"]
        assert {k for k in arrays if "pattern" in k} == {f"pattern/{p}" for p in patterns}
        assert {k for k in arrays if "noise" in k} == {f"noise/{t}" for t in targets}
        assert all(arrays[f"pattern/{p}"].shape == (2, 20, 3) for p in patterns)
        assert all(arrays[f"noise/{t}"].shape == (3, 2, 2) for t in targets)  # [levels with none, draws, seeds]
        assert ("emap/gap" in arrays) == several
        assert (row["interaction"] is not None) == several and row["robustness"]["regime"] == "clean-trained"


def test_level_none_is_the_clean_score(finished, rows):
    target = RecordStore(finished).targets("test")[0]
    for name, row in rows.items():
        logits = RecordStore(finished).logits(name, "test")
        clean = right(logits, target).mean(-1)
        np.testing.assert_array_equal(clean, row["values"])
        arrays = found(finished, name)
        for key, values in arrays.items():
            if key.startswith("noise/"):
                np.testing.assert_array_equal(values[0], np.broadcast_to(clean, (2, 2)))
        np.testing.assert_allclose(arrays["pattern/" + "+".join(row["streams"])], logits, atol=1e-5)
        for curve in row["robustness"]["noise"].values():
            assert curve["mean"][0] == row["mean"] and curve["levels"] == [0, 0.5, 1]


def test_a_network_under_a_pattern_is_the_model_with_streams_left_out(finished):
    for name in ("joined", "doubled"):
        apply, variables = variables_of(finished, name)
        for pattern in (("left", "right"), ("left",), ("right",), ()):
            gone = jnp.ones(20, bool)
            seen = TABLE.pick([name])[0].view or (lambda data: data)
            streams = {k: s if k in pattern else s.absent(gone) for k, s in seen(DATA).splits["test"].streams.items()}
            outputs = found(finished, name)["pattern/" + "+".join(pattern)]
            np.testing.assert_allclose(outputs, apply(variables, streams), atol=1e-5)


def test_a_vote_under_a_pattern_is_its_rule_on_the_members_logits(finished):
    logits = {name: np.float64(RecordStore(finished).logits(name, "test")) for name in ("left", "right")}
    counts = np.bincount(DATA.splits["train"].target) + 1.0
    rules = {
        "mean of logits": decision.mean_of_logits,
        "product": decision.product,
        "prior-corrected product": lambda *x: decision.prior_corrected_product(*x, log_prior=np.log(counts / 23)),
    }
    assert counts.sum() == 23
    for name, rule in rules.items():
        for pattern in (("left", "right"), ("left",), ("right",), ()):
            present = {k: np.full(20, k in pattern) for k in logits}
            outputs = found(finished, name)["pattern/" + "+".join(pattern)]
            for seed in range(2):
                expected = rule({k: v[seed] for k, v in logits.items()}, present)
                np.testing.assert_allclose(outputs[seed], expected, atol=1e-6)
    alone = found(finished, "mean of logits")
    np.testing.assert_allclose(alone["pattern/left"], logits["left"], atol=1e-6)
    assert not alone["pattern/"].any()


def noisy_streams(data, touched, draw):
    """The test split at severities 0.5 and 1, one after the other, worked out again.

    Features that the table did not standardise meet noise in units of their deviation on train.
    """
    noises, test = default_noises(data.card.kinds), data.splits["test"]
    train = {k: s.values.astype(np.float64) for k, s in data.splits["train"].streams.items()}
    mean, deviation = ({k: getattr(v, what)((0, 1)) for k, v in train.items()} for what in ("mean", "std"))
    standard = {k: s.replace(values=np.float32((s.values - mean[k]) / deviation[k])) for k, s in test.streams.items()}
    key = jax.random.fold_in(jax.random.key(0), draw)
    noisy = corrupted(test.replace(streams=standard), {k: noises[k] for k in touched}, [0.5, 1.0], key)
    return {k: s.replace(values=np.float32(s.values * deviation[k] + mean[k])) for k, s in noisy.streams.items()}


def scores_of(logits, target):
    """``[levels, seeds]`` of logits ``[seeds, levels * items, classes]``."""
    return right(logits, np.tile(target, 2)).reshape(len(logits), 2, len(target)).mean(-1).T


def test_noise_is_that_of_the_protocol_and_a_vote_votes_with_the_noisy_outputs(finished):
    """Worked out again from the stored parameters: the noise of each draw, the models on it, the rule on their logits;
    noise on all is that on each."""
    target = RecordStore(finished).targets("test")[0]
    models = {name: variables_of(finished, name) for name in ("left", "right", "joined")}
    for touched in (["left"], ["right"], ["left", "right"]):
        for draw in range(2):
            streams = noisy_streams(DATA, touched, draw)
            logits = {
                name: np.asarray(apply(variables, streams if name == "joined" else {name: streams[name]}))
                for name, (apply, variables) in models.items()
            }
            vote = np.stack([decision.mean_of_logits({k: logits[k][i] for k in ("left", "right")}) for i in range(2)])
            name = "all" if len(touched) > 1 else touched[0]
            for row, outputs in {"joined": logits["joined"], "mean of logits": vote}.items():
                measured = found(finished, row)[f"noise/{name}"][1:, draw]
                np.testing.assert_allclose(measured, scores_of(outputs, target), atol=1e-12)
    assert (found(finished, "joined")["noise/all"][2] != found(finished, "joined")["noise/all"][0]).any()


def test_each_seed_meets_two_of_the_draws_and_all_seeds_together_all_of_them(copy, monkeypatch):
    """What a seed scores under a draw is the same whichever seeds meet it, however few levels are in memory at once."""
    assert [draws_of_seed(seed, 5, 10) for seed in range(5)] == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]
    assert draws_of_seed(0, 5, 1) == [0, 1, 2, 3, 4] and draws_of_seed(1, 5, 2) == [3, 4, 0]
    assert draws_of_seed(3, 1, 10) == [0]
    every = found(copy, "joined"), found(copy, "mean of logits")  # two draws: both of each seed
    monkeypatch.setattr(sweep_module, "COPIES_BYTES", 1)  # one level at a time
    run(copy, measure=dataclasses.replace(MEASURE, draws=3, levels=2))
    for before, name in zip(every, ("joined", "mean of logits")):
        after = found(copy, name)
        for key in ("noise/left", "noise/right", "noise/all"):
            assert after[key].shape == (3, 2, 2)  # levels with none, draws of a seed, seeds
            np.testing.assert_array_equal(after[key][:, :, 0], before[key][:, :, 0])  # draws 0 and 1
            np.testing.assert_array_equal(after[key][:, 1, 1], before[key][:, 0, 1])  # draws 2 and 0
            assert np.isfinite(after[key]).all()


def test_an_additive_vote_has_no_interaction_and_shapley_values_sum_to_what_is_gained(finished, rows):
    arrays = found(finished, "mean of logits")
    np.testing.assert_array_equal(arrays["emap/gap"], np.zeros((1, 2)))
    for name, row in rows.items():
        if len(row["streams"]) > 1:
            arrays = found(finished, name)
            nothing, everything = arrays["shapley/worth"]
            np.testing.assert_allclose(arrays["shapley/values"].sum(-1), everything - nothing, atol=1e-12)
            np.testing.assert_allclose(everything, row["values"][:1], atol=1e-12)  # of the first seed
            assert row["interaction"]["emap"]["seeds"] == 1 and row["interaction"]["emap"]["n"] == 20


def test_measured_again_the_bytes_are_the_same_and_nothing_is_trained(copy, finished, monkeypatch):
    monkeypatch.setattr("mmjax.experiment.rows.prepare", None)
    before = {path.name: path.read_bytes() for path in (copy / "checkpoints").iterdir()}
    shutil.rmtree(copy / "analysis")
    run(copy)
    assert measured_files(copy) == measured_files(finished) and len(measured_files(copy)) == 14
    assert {path.name: path.read_bytes() for path in (copy / "checkpoints").iterdir()} == before
    assert (copy / "table.json").read_bytes() == (finished / "table.json").read_bytes()


def which_run(monkeypatch, workdir, *arguments, **others):
    """Names of the rows whose analysis is written."""
    written = []
    real = RecordStore.write_analysis

    def noted(store, name, *rest):
        written.append(name)
        real(store, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(RecordStore, "write_analysis", noted)
        run(workdir, *arguments, **others)
    return set(written)


def test_what_was_measured_is_not_measured_again_nor_are_its_models_read(copy, monkeypatch):
    shutil.rmtree(copy / "checkpoints")
    monkeypatch.setattr(analyses, "_patterns", None)
    monkeypatch.setattr("mmjax.experiment.rows.prepare", None)
    assert which_run(monkeypatch, copy) == set()


def test_only_what_is_asked_for_otherwise_is_measured_anew(copy, rows, monkeypatch):
    several = {name for name, row in rows.items() if len(row["streams"]) > 1}
    assert which_run(monkeypatch, copy, measure=dataclasses.replace(MEASURE, seeds=2)) == several
    assert found(copy, "joined")["emap/gap"].shape == (2, 2)
    short = dataclasses.replace(MEASURE, levels=1, draws=1, interactions="none")
    before = found(copy, "joined")
    assert which_run(monkeypatch, copy, measure=short) == set(rows)
    after = found(copy, "joined")
    assert after["noise/all"].shape == (2, 1, 2) and before["noise/all"].shape == (3, 2, 2)
    assert set(after) == set(before) and (after["emap/gap"] == before["emap/gap"]).all()  # nothing is thrown away
    assert which_run(monkeypatch, copy, measure=dataclasses.replace(short, noise="none")) == set()
    path = next((copy / "analysis").glob("joined-????????.npz"))
    path.write_bytes(path.read_bytes()[:-7])  # damaged: as if it were not there
    assert which_run(monkeypatch, copy, measure=dataclasses.replace(short, noise="none")) == {"joined"}
    assert {key.partition("/")[0] for key in found(copy, "joined")} == {"pattern"}


def test_killed_while_it_measures_it_goes_on_from_the_part_it_was_at(copy, finished, monkeypatch):
    shutil.rmtree(copy / "analysis")
    before = RecordStore(copy)
    before._write_records([{k: v for k, v in r.items() if k not in MEASURED} for r in before._all()])

    class Killed(BaseException):
        pass

    def dying(*arguments, **others):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(analyses.interactions, "measure", dying)
        run(copy)
    assert "noise/all" in found(copy, "joined") and "emap/gap" not in found(copy, "joined")
    monkeypatch.setattr(analyses, "sweep", None)  # what is there is not made again
    monkeypatch.setattr(analyses, "_patterns", None)
    run(copy)
    assert measured_files(copy) == measured_files(finished)
    assert (copy / "records.jsonl").read_bytes() == (finished / "records.jsonl").read_bytes()


MEASURED = ("per_mask", "emap", "shapley", "perceptual", "robustness")


def test_records_hold_what_was_measured_of_their_seed(finished, rows):
    for name, row in rows.items():
        first, second = RecordStore(finished).records(name)
        several = len(row["streams"]) > 1
        assert {*MEASURED} & set(first) == {*MEASURED} - ({"emap", "shapley", "perceptual"} if not several else set())
        for name_of, value in first["calibration"].items():
            assert np.mean([value, second["calibration"][name_of]]) == pytest.approx(row["calibration"][name_of])
        assert "emap" not in second and first["data_fraction"] == 1  # interactions are of the first seed only
        for record, value in zip((first, second), row["values"]):
            assert record["per_mask"]["+".join(row["streams"])] == value
            assert {level[0] for level in record["robustness"].values()} == {round(value, 6)}
        if several:
            emap = row["interaction"]["emap"]
            assert first["emap"] == pytest.approx({"score": emap["score"], "gap": emap["gap"], "n": 20}, abs=1e-9)
            shares = {k: cell["value"] for k, cell in row["interaction"]["shapley"].items()}
            assert first["shapley"] == pytest.approx(shares, abs=1e-6)


def test_another_configuration_is_measured_anew_and_so_is_what_uses_it(copy, monkeypatch):
    short = Measure(levels=1, draws=1, interactions="none")
    rows = ["left", "right", "mean of logits", "joined"]
    run(copy, measure=short, rows=rows)  # without the controls, of less
    changed = apply_settings(TABLE, ["rows.left.varies=False"])
    seen = which_run(monkeypatch, copy, changed, measure=short, rows=rows)
    assert {"left", "mean of logits"} <= seen and not {"right", "joined", "doubled"} & seen
    assert which_run(monkeypatch, copy, changed, measure=short, rows=rows) == set()
    more = dataclasses.replace(changed, seeds=3)
    assert which_run(monkeypatch, copy, more, measure=short, rows=["right"]) == {"right"}
    assert found(copy / "part", "right")["pattern/right"].shape == (3, 20, 3)


def test_models_that_were_thrown_away_are_missed_when_they_are_needed(copy):
    for path in (copy / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"row 'left' cannot be measured: no parameters in .*logits/") as error:
        run(copy, measure=dataclasses.replace(MEASURE, draws=1))
    assert "\n" not in str(error.value)


def in_sequences():
    """Rows with a label per step: twenty groups of three items, votes among them."""
    rng = np.random.default_rng(1)
    target = rng.integers(0, 3, 60)
    drawn = {name: rng.normal(rng.normal(size=(3, 4))[target], 0.8) for name in ("left", "right")}
    data = datasets.from_arrays(
        drawn, target, split=np.repeat([0, 1, 2], 20), group=np.arange(60) // 5, name="sequences"
    )
    head = ClassificationHead(3, pool=None)

    def row(name, streams=("left", "right"), **fields):
        model = Multimodal({}, PerStep(fusion.Concat(4)), head)
        return Row(name, model=model, streams=streams, view=views.by_group, **fields)

    singles = [row("left", ("left",)), row("right", ("right",))]
    return small.table(dataset=data, rows=[*singles, *decision_rows(("left", "right")), row("joined")])


def test_rows_with_a_label_per_step_have_patterns_and_noise_on_demand_and_say_why_they_have_no_interactions(tmp_path):
    table, measure = in_sequences(), dataclasses.replace(MEASURE, draws=1)
    run(tmp_path, table, measure)
    assert not any(key.startswith("noise/") for key in found(tmp_path, "joined"))
    run(tmp_path, table, dataclasses.replace(measure, noise="all"))
    store = RecordStore(tmp_path)
    target = store.targets("test")[0]
    told = {row["name"]: row for row in json.loads((tmp_path / "table.json").read_bytes())["rows"]}
    for name in ("left", "joined", "mean of logits"):
        arrays, logits = found(tmp_path, name), store.logits(name, "test")
        np.testing.assert_allclose(arrays["pattern/" + "+".join(told[name]["streams"])], logits, atol=1e-5)
        assert arrays["noise/left"].shape == (3, 1, 2) and arrays["pattern/"].shape == (2, 20, 3)
        np.testing.assert_array_equal(arrays["noise/left"][0, 0], right(logits, target).mean(-1))
    assert "label per step" in told["joined"]["interaction_note"] and told["joined"]["interaction"] is None
    assert store.records("joined")[0]["robustness"]["left"][0] == round(told["joined"]["values"][0], 6)
    # The concatenation at every step is the concatenation of every item: noise and patterns are those of the items.
    apply, variables = variables_of(tmp_path, "joined", table)
    streams, test = noisy_streams(table.dataset, ["left"], 0), table.dataset.splits["test"]
    measured = found(tmp_path, "joined")
    outputs = np.asarray(apply(variables, streams))[:, :, 0]
    np.testing.assert_allclose(measured["noise/left"][1:, 0], scores_of(outputs, target), atol=1e-12)
    gone = {**test.streams, "left": test.streams["left"].absent(jnp.ones(20, bool))}
    np.testing.assert_allclose(measured["pattern/right"], np.asarray(apply(variables, gone))[:, :, 0], atol=1e-5)


def scoped(scores, interactions="scope", primary="accuracy", test=None):
    """Rows whose interactions are measured, by their validation scores."""
    roles = {"voted": "mean of logits", "joined": "concatenation", "shuffled": "shuffled control"}
    names = {**dict.fromkeys(roles, 0.0), **scores}
    subjects = {
        name: types.SimpleNamespace(
            row=Row(name, fit=small.guess, role=roles.get(name, "")), streams=("a", "b"), per_step=False, in_parts=False
        )
        for name in names
    }
    subjects["steps"] = types.SimpleNamespace(
        row=Row("steps", fit=small.guess, role="concatenation"), streams=("a", "b"), per_step=True, in_parts=False
    )
    subjects["alone"] = types.SimpleNamespace(row=Row("alone", fit=small.guess), streams=("a",))
    names = {**names, "alone": 1.0}

    def records(name):
        metrics = {primary: (test or names)[name]}
        return [{"primary": primary, "validation_metrics": {primary: names[name]}, "metrics": metrics}]

    store = types.SimpleNamespace(records=records)
    return analyses._scope(store, subjects, Measure(interactions=interactions)) - set(roles)


def test_the_scope_is_the_baselines_the_controls_and_the_three_best_by_validation():
    scores = {"a": 0.5, "b": 0.9, "c": 0.7, "d": 0.6, "e": 0.8}
    assert scoped(scores) == {"b", "c", "e"}
    upside_down = {name: -score for name, score in scores.items()}
    everything = {"voted": 0, "joined": 0, "shuffled": 0, "alone": 0, **upside_down}
    assert scoped(scores, test=everything) == {"b", "c", "e"}  # test scores say nothing
    assert scoped(scores, primary="mae") == {"a", "d", "c"}  # of errors the lowest
    assert scoped(scores, "all") == set(scores) and scoped(scores, "none") == set()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"interactions": "some"}, "interactions is measured of none, scope, all, got 'some'"),
        ({"noise": True}, "noise is measured of none, scope, all, got True"),
        ({"levels": 0}, "levels must be at least 1, got 0"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"seeds": -1}, "seeds must be at least 1"),
    ],
)
def test_wrong_settings_say_what_would_be_right(change, words):
    with pytest.raises(UsageError, match=words):
        Measure(**change)
    assert Measure(levels=4).severities == [0, 0.25, 0.5, 0.75, 1]
