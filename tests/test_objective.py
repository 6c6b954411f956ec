"""Losses by name, weight and schedule, and a task's own state: totals by hand, both feeds, killed and resumed."""

import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.checkpoint import Checkpoints
from mmjax.errors import UsageError
from mmjax.metrics import compute, merge
from mmjax.objective import SownLoss, is_error, sown_losses, total_loss
from mmjax.progress import MetricsLog, read_metrics
from mmjax.resident import fit, prepare
from mmjax.sharding import make_mesh
from mmjax.streaming import evaluate_streaming, fit_streaming
from mmjax.tasks import next_task_state
from mmjax.training import Train, init_state, make_train_step, predict_and_sow
from tests.compiled import cached_programs
from tests.draw import quick_jit
from tests.sown import Blend, Pair, Parts, PerRow, Sows, values

KEY = jax.random.key(0)
SGD = optax.with_extra_args_support(optax.sgd(1.0))


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    with cached_programs(tmp_path_factory.mktemp("compiled")):
        yield


def ramp(update):
    """0, 1, 2, ... of the update."""
    return 1.0 * update


def one_device():
    return make_mesh(devices=jax.devices()[:1])


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


class TestTotal:
    weight = jnp.array([1.0, 3.0, 0.0])

    def total(self, weights, update=0, **sown):
        return float(total_loss(jnp.array([1.0, 2.0, jnp.nan]), sown, weights, update, self.weight, self.weight))

    def test_is_the_task_and_the_weighted_sum_of_the_rest(self):
        row, whole = jnp.array([4.0, 8.0, jnp.nan]), jnp.float32(10)  # means 7 and 10, that of the task 7/4
        assert self.total({}) == 1.75
        assert self.total({}, row=[row], whole=[whole]) == 1.75 + 7 + 10
        assert self.total({"row": 0.5}, row=[row, row], whole=[whole]) == 1.75 + 0.5 * 14 + 10
        weights = {"row": optax.linear_schedule(0, 1, 10), "whole": -2}
        assert self.total(weights, 5, row=[row], whole=[whole]) == 1.75 + 0.5 * 7 - 2 * 10

    def test_names_that_nothing_sows_are_refused(self):
        with pytest.raises(UsageError, match="loss_weights names 'kl', no loss that the model sows; there is: a, row"):
            self.total({"kl": 1.0}, row=[0.0], a=[0.0])
        with pytest.raises(UsageError, match="its modules sow none"):
            self.total({"kl": 1.0})

    def test_a_loss_of_another_shape_is_refused(self):
        with pytest.raises(UsageError, match=r"the loss 'kl' that a module sows has the shape \(2,\)"):
            self.total({}, kl=[jnp.zeros(2)])

    def test_names_are_those_sown_whatever_the_module_and_the_value(self):
        sown = {"a": {"b": {"kl": (1, 2)}}, "kl": ({"x": 3, "y": 4},), "summed": 5}
        assert sown_losses(sown) == {"kl": [1, 2, 3, 4], "summed": [5]}


def test_means_merge_over_batches_whatever_their_weights():
    first = SownLoss.of([jnp.array([1.0, 5.0, jnp.nan]), jnp.float32(2)], jnp.array([1.0, 1, 0]))
    second = SownLoss.of([jnp.array([9.0]), jnp.float32(8)], jnp.array([2.0]))
    assert float(first.compute()[""]) == 3 + 2
    assert float(merge(first, second).compute()[""]) == (1 + 5 + 18) / 4 + (2 * 2 + 2 * 8) / 4
    steps = jnp.array([[1.0, 1, 0], [1, 0, 0]])  # a loss per row beside one per labelled item
    both = SownLoss.of([jnp.array([1.0, 3.0]), jnp.ones((2, 3))], steps)
    assert float(both.compute()[""]) == 2 + 1


def test_weights_are_numbers_or_schedules():
    with pytest.raises(UsageError, match=r"train.loss_weights\['kl'\] must be a number or a schedule, got 'much'"):
        Train(loss_weights={"kl": "much"})
    assert Train(loss_weights={"kl": 2}) == Train(loss_weights={"kl": 2}) != Train()
    assert hash(Train(loss_weights={"kl": 2}))
    assert is_error("loss/kl", ()) and is_error("mae", {"mae"}) and not is_error("accuracy", {"loss"})


@pytest.mark.parametrize("accumulate", [1, 4])
def test_each_loss_has_its_weight_in_the_gradient_and_its_mean_in_the_metrics(accumulate):
    batch = values(0, 1, 2, 3, 4, 5, 6, np.nan).replace(weight=jnp.ones(8).at[7].set(0.0))
    start = init_state(Sows(), SGD, batch.streams, KEY)
    assert set(start.variables) == {"params", "batch_stats"}
    weights = {"row": ramp, "whole": 0.5}
    step = quick_jit(make_train_step(Sows(), PerRow(), SGD, accumulate=accumulate, loss_weights=weights))
    state, states = step(start.replace(step=jnp.int32(2)), batch, KEY)
    # d/drow of the mean of row^2 * (0..6) is 2 * 3 * 3, twice; d/dwhole of whole^2 is 2 * 5, by half.
    assert float(start.params["row"] - state.params["row"]) == pytest.approx(36)
    assert float(start.params["whole"] - state.params["whole"]) == pytest.approx(5)
    assert float(state.collections["batch_stats"]["count"]) == accumulate
    metrics = {name: float(value) for name, value in compute(states).items()}
    assert metrics == pytest.approx({"loss": 0.0, "loss/row": 27.0, "loss/whole": 25.0})


def test_what_stands_in_rows_of_weight_zero_changes_no_bit():
    weight = jnp.ones(4).at[3].set(0.0)
    step = quick_jit(make_train_step(Sows(), PerRow(), SGD, loss_weights={"row": 2.0}))
    batches = [values(1, 2, 4, last).replace(weight=weight) for last in (0, 1e3, np.nan)]
    start = init_state(Sows(), SGD, batches[0].streams, KEY)
    expected, *others = (step(start, batch, KEY) for batch in batches)
    for other in others:
        assert_same(other, expected)
    expected, *others = (predict_and_sow(Sows(), start.variables, batch) for batch in batches)
    for other in others:
        assert_same(other[1], expected[1])


TRAIN = Train(epochs=3, batch_size=2, learning_rate=0.1, optimizer=optax.sgd, loss_weights={"part": ramp, "mean": 0.5})
SPLITS = {"train": values(1, 1, 1, 1), "validation": values(1, 3, 5), "test": values(10, 20, 30, 40)}


def expected_losses():
    """By hand: six updates; the weights of the two parts fall by 0.1 * update * rate, that of the mean by 0.05."""
    rows, final = [], 5.0
    w, scale, update = np.ones(2), 1.0, 0
    for _ in range(TRAIN.epochs):
        seen = []
        for _ in range(2):
            seen.append((w @ [1, 2], scale))
            w, scale, update = w - 0.1 * update * np.array([1, 2]), scale - 0.05, update + 1
        losses = {}
        for split, (part, mean) in {
            "train": np.mean(seen, 0),
            "validation": (3 * w @ [1, 2], 3 * scale),
            "test": (25 * w @ [1, 2], 25 * scale),
        }.items():
            losses |= {f"{split}/loss/part": part, f"{split}/loss/mean": mean}
            losses[f"{split}/loss"] = final * part + 0.5 * mean
        rows.append(losses)
    return rows


@pytest.mark.parametrize("mapped", ["vmap", "map"])
def test_the_resident_feed_logs_each_loss_and_selects_by_all_at_their_last_weight(mapped):
    found = fit(Parts(), PerRow(), TRAIN, SPLITS, (0, 1), mapped=mapped)
    for epoch, expected in enumerate(expected_losses()):
        assert {name: value[epoch, 1] for name, value in found.history.items()} == pytest.approx(
            expected, rel=1e-5, abs=1e-4
        )
    assert found.epoch.tolist() == [2, 2] and found.outputs["test"]["loss"].shape == (2, 4)


def test_a_statistic_of_a_batch_sees_one_split(monkeypatch):
    """In batches of 2 the third row of validation would share one with the first of test."""
    monkeypatch.setattr("mmjax.epoch.EVALUATION_BATCH", 2)
    found = fit(Parts(), PerRow(), TRAIN, SPLITS, (0,), mapped="vmap").history
    for epoch, expected in enumerate(expected_losses()):
        assert {name: value[epoch, 0] for name, value in found.items()} == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_the_streaming_feed_logs_each_loss_and_selects_by_all_at_their_last_weight(tmp_path):
    result = fit_streaming(Parts(), PerRow(), TRAIN, SPLITS, workdir=tmp_path, mesh=one_device(), log_every=1)
    lines, expected = read_metrics(tmp_path), expected_losses()
    for prefix, number in (("train/", 6), ("validation/", 3)):
        some = [{k: v for k, v in line.items() if k.startswith(prefix)} for line in lines]
        some = [line for line in some if line]
        assert len(some) == number
        for epoch in range(3):
            parts = some[2 * epoch : 2 * epoch + 2] if number == 6 else some[epoch : epoch + 1]
            mean = {name: np.mean([part[name] for part in parts]) for name in parts[0]}
            assert mean == pytest.approx(
                {k: v for k, v in expected[epoch].items() if k.startswith(prefix)}, rel=1e-5, abs=1e-4
            )
    assert result.epoch == 2
    # Evaluated later, when nothing tells how many updates there were but the checkpoint.
    again = evaluate_streaming(Parts(), PerRow(), TRAIN, SPLITS["test"], workdir=tmp_path, mesh=one_device())
    assert {f"test/{name}": value for name, value in again.items()}.items() <= result.metrics.items()
    assert result.metrics["test/loss"] == pytest.approx(expected[2]["test/loss"], rel=1e-5, abs=1e-4)
    assert json.loads((tmp_path / "config.json").read_text())["train.loss_weights.mean"] == 0.5


@pytest.mark.parametrize("feed", ["resident", "streaming"])
def test_an_unknown_name_is_refused_by_both_feeds(feed, tmp_path):
    train = Train(epochs=1, batch_size=2, loss_weights={"kl": 1.0})
    with pytest.raises(UsageError, match=r"names 'kl', no loss that the model sows; there is: mean, part"):
        if feed == "resident":
            prepare(Parts(), PerRow(), train, SPLITS, (0,))
        else:
            fit_streaming(Parts(), PerRow(), train, SPLITS, workdir=tmp_path, mesh=one_device())


@pytest.mark.parametrize("feed", ["resident", "streaming"])
def test_an_epoch_may_be_chosen_by_a_loss_of_a_module_of_which_less_is_better(feed, tmp_path):
    train = Train(epochs=2, batch_size=4, learning_rate=0.1, optimizer=optax.sgd, select="loss/part")
    if feed == "resident":
        assert fit(Parts(), PerRow(), train, SPLITS, (0,)).epoch[0] == 1
    else:
        assert fit_streaming(Parts(), PerRow(), train, SPLITS, workdir=tmp_path, mesh=one_device()).epoch == 1


BLENDED = Train(epochs=4, batch_size=2, learning_rate=0.05, optimizer=optax.sgd)
NUMBERS = {"train": values(2, 2, 2, 2), "validation": values(3, 3, 3), "test": values(1, 1)}


def expected_blend(weights_of=None):
    """By hand: weights ``[epochs, 2]`` with which each epoch trains, and validation's losses after it."""
    w, states, held = np.array([0.0, 1.0]), [], []
    blend = np.array([0.5, 0.5])
    for epoch in range(BLENDED.epochs):
        blend = blend if weights_of is None else weights_of[epoch]
        states.append(blend)
        seen = []
        for _ in range(2):
            seen.append((w - 2) ** 2)
            w = w - 0.05 * blend * 2 * (w - 2)
        held.append((w - 3) ** 2)
        left = held[-1] + 0.5 * np.mean(seen, 0)
        blend = left / left.sum()
    return np.array(states), np.array(held)


class Killed(Exception):
    """Stands for a SIGKILL between two epochs."""


class TestState:
    def test_weights_change_after_an_epoch_in_the_resident_feed(self):
        states, held = expected_blend()
        assert abs(states[1, 0] - 0.5) > 0.05  # else it would show nothing
        for mapped in ("vmap", "map"):
            found = fit(Pair(), Blend(), BLENDED, NUMBERS, (0, 1), mapped=mapped)
            np.testing.assert_allclose(found.task_states["weights"][:, 1], states, rtol=1e-5)
            assert found.task_states["epochs"].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
            for place, name in enumerate("ab"):
                np.testing.assert_allclose(found.history[f"validation/{name}"][:, 1], held[:, place], rtol=1e-5)

    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_weights_change_after_an_epoch_in_the_streaming_feed(self, tmp_path, accumulate):
        train = Train(
            epochs=4, batch_size=2 // accumulate, accumulate=accumulate, learning_rate=0.05, optimizer=optax.sgd
        )
        fit_streaming(Pair(), Blend(), train, NUMBERS, workdir=tmp_path, mesh=one_device())
        held = [[line[f"validation/{n}"] for n in "ab"] for line in read_metrics(tmp_path) if "validation/a" in line]
        np.testing.assert_allclose(held, expected_blend()[1], rtol=1e-5)
        scores = evaluate_streaming(Pair(), Blend(), train, NUMBERS["test"], workdir=tmp_path, mesh=one_device())
        assert scores.keys() == {"a", "b", "loss"}

    def test_a_refit_trains_with_the_states_of_the_fit_that_it_repeats(self):
        given = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5]])
        states = {"weights": np.repeat(given[:, None], 2, 1).astype(np.float32), "epochs": np.zeros((4, 2), np.int32)}
        found = prepare(Pair(), Blend(), BLENDED, NUMBERS, (0, 1)).run(task_states=states, stop_at=(3, 3))
        held = expected_blend(given)[1]
        np.testing.assert_allclose(found.history["validation/a"][:, 0], held[:, 0], rtol=1e-5)
        assert_same(found.task_states, states)

    def test_it_keeps_its_shapes(self):
        class Grows(Blend):
            def after_epoch(self, state, train_metrics, validation_metrics):
                return {**state, "epochs": state["epochs"] + 0.5}

        with pytest.raises(UsageError, match=r"Grows.after_epoch must keep .*int32\[\].*got .*float32\[\]"):
            fit(Pair(), Grows(), BLENDED, NUMBERS, (0,))
        assert next_task_state(PerRow(), None, {}, {}) is None

    def test_without_after_epoch_it_stays(self):
        class Still(PerRow):
            def init_state(self):
                return jnp.float32(2)

            def loss(self, outputs, batch, *, state):
                return state * outputs["a"]

            def metrics(self, outputs, batch):
                return {"loss": Blend().metrics(outputs, batch)["a"]}

        found = fit(Pair(), Still(), BLENDED, NUMBERS, (0,))
        assert found.task_states.tolist() == [[2.0]] * 4

    def test_a_killed_resident_run_continues_with_the_same_bits(self, tmp_path):
        def kill(number, metrics):
            if number == 2:
                raise Killed

        numbers = {**NUMBERS, "train": values(*np.random.default_rng(0).normal(2, 1, 9))}
        run = functools.partial(fit, Pair(), Blend(), BLENDED, numbers, (0, 1), snapshot_seconds=0.0)
        expected, seen = run(), []
        with Checkpoints(tmp_path) as snapshots, pytest.raises(Killed):
            run(snapshots=snapshots, on_epoch=kill)
        with Checkpoints(tmp_path) as snapshots:
            found = run(snapshots=snapshots, on_epoch=lambda number, metrics: seen.append(number))
        assert seen == [2, 3]
        for name in ("variables", "outputs", "epoch", "history", "task_states"):
            assert_same(getattr(found, name), getattr(expected, name))
        assert len(np.unique(found.task_states["weights"][:, 0, 0])) == 4

    @pytest.mark.parametrize("at", [3, 4, 5, 8])
    def test_a_killed_streaming_run_continues_with_the_same_bits(self, tmp_path, at, monkeypatch):
        """Within an epoch (its training metrics so far are kept), at its end, and before the next one's first end."""
        numbers = {**NUMBERS, "train": values(*np.random.default_rng(0).normal(2, 1, 8))}
        run = functools.partial(
            fit_streaming, Pair(), Blend(), BLENDED, numbers, mesh=one_device(), log_every=1, checkpoint_every=3
        )
        run(workdir=tmp_path / "alone")
        write = MetricsLog.write

        def stop(log, step, metrics):
            write(log, step, metrics)
            if step == at:
                os.kill(os.getpid(), signal.SIGTERM)

        def kill(log, step, metrics):
            if step == at + 3:
                raise Killed
            write(log, step, metrics)

        for how, error in ((stop, SystemExit), (kill, Killed)):
            with monkeypatch.context() as patch, pytest.raises(error):
                patch.setattr(MetricsLog, "write", how)
                run(workdir=tmp_path / "killed")
        run(workdir=tmp_path / "killed")
        for name in ("metrics.jsonl", "result.json", "best.safetensors"):
            assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
