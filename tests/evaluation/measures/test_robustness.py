import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.datasets.base import Card, Dataset
from mmjax.datasets.views import by_group
from mmjax.errors import UsageError
from mmjax.evaluation.measures import robustness
from mmjax.evaluation.measures.noise import NOISES
from mmjax.evaluation.measures.robustness import ALL, LEVELS
from mmjax.fusion import decision
from mmjax.stream import Batch, Stream

NOISE = {"a": NOISES["feature/gaussian"], "b": NOISES["feature/step_drop"]}
LINE = np.linspace(0.9, 0.5, 11)


def batch(rows=6):
    draw = np.random.default_rng(0)
    mask = np.ones((rows, 3), bool)
    mask[1, 2] = mask[4, 1:] = False
    return Batch(
        streams={
            "a": Stream(draw.normal(size=(rows, 1, 4)).astype(np.float32), np.ones((rows, 1), bool)),
            "b": Stream((draw.normal(size=(rows, 3, 2)) * mask[..., None]).astype(np.float32), mask),
        },
        target=draw.integers(0, 2, rows).astype(np.int32),
        weight=np.ones(rows, np.float32),
        index=np.arange(rows, dtype=np.int32)[::-1].copy(),
        group=(np.arange(rows) // 2 + 3).astype(np.int32),
    )


class Predictor:
    """Two linear seeds; counts how often it is traced and called, and answers in the order of the index."""

    def __init__(self):
        self.traces, self.calls = 0, 0
        weights = np.random.default_rng(1).normal(size=(2, 6, 2)).astype(np.float32)

        @jax.jit
        def run(a, b):
            self.traces += 1
            return jnp.einsum("nd,sdc->snc", jnp.concatenate([a.values[:, 0], b.values.sum(1)], -1), weights)

        self.run = run

    def __call__(self, given):
        self.calls += 1
        outputs = np.asarray(self.run(given.streams["a"], given.streams["b"]))
        return outputs[:, np.argsort(np.asarray(given.index))]


def test_area_retention_and_effective_robustness_by_hand():
    assert robustness.area(LINE) == pytest.approx(0.7)
    assert robustness.area([1.0, 0.5, 0.0], [0, 0.25, 1]) == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)
    assert robustness.retention(LINE, 0.5) == pytest.approx((0.7 - 0.5) / 0.4)
    assert robustness.retention(np.full(11, 0.8), 0.5) == pytest.approx(1)
    assert robustness.retention(np.r_[0.9, np.full(10, 0.1)], 0.5) < 0  # below chance
    assert np.isnan(robustness.retention(np.full(11, 0.5), 0.5))
    reference = np.linspace(0.8, 0.2, 11)
    assert robustness.effective_robustness(LINE, reference) == pytest.approx(-0.2 + 0.3)
    assert robustness.effective_robustness(LINE, LINE - 0.3) == pytest.approx(0)
    seeds = np.stack([LINE, reference], axis=1)
    np.testing.assert_allclose(robustness.area(seeds), [0.7, 0.5])
    np.testing.assert_allclose(robustness.retention(seeds, 0.5), [0.5, 0], atol=1e-12)
    for curve, levels in [(LINE[:5], LEVELS), ([1, 1], [0, 0.5]), ([1, 1, 1], [0, 0, 1]), (1.0, [0, 1])]:
        with pytest.raises(UsageError, match="levels"):
            robustness.area(curve, levels)


def test_worst_drop_and_harmful_fusion_by_hand():
    curves = {"text": np.linspace(0.8, 0.55, 11), "audio": np.linspace(0.8, 0.7, 11), ALL: np.linspace(0.8, 0.1, 11)}
    assert robustness.worst_drop(curves) == ("text", pytest.approx(0.25))
    # text noisy: 0.55 is below audio alone; audio noisy: 0.70 is not below text alone
    assert robustness.harmful(curves, {"text": 0.65, "audio": 0.6}) == ["text"]
    assert robustness.harmful(curves, {"text": 0.75, "audio": 0.5}) == ["audio"]
    three = {**curves, "video": np.linspace(0.8, 0.6, 11)}
    singles = {"text": 0.5, "audio": 0.57, "video": 0.56}
    assert robustness.harmful(three, singles) == ["text"]
    # validation prefers video to audio, whose test score the row also misses, but not with the other numbers
    assert robustness.harmful(three, {**singles, "video": 0.4}, {"text": 0, "audio": 1, "video": 2}) == []
    assert robustness.harmful({"text": LINE}, {"text": 1.0}) == []  # nothing remains
    with pytest.raises(UsageError, match="'video'"):
        robustness.harmful(three, {"text": 1, "audio": 1})
    with pytest.raises(UsageError, match="at least one"):
        robustness.worst_drop({ALL: LINE})


def test_multibench_scores_by_hand():
    late = np.linspace(0.8, 0.6, 11)
    curves = {"late": late, "steep": np.linspace(0.9, 0.5, 11), "flat": np.full(11, 0.75)}
    found = robustness.multibench(curves, late)
    # areas 0.70, 0.70, 0.75; sums over levels of what is above the shifted reference: 0, -1.1, 1.1
    assert {k: v["relative"] for k, v in found.items()} == pytest.approx({"late": 0, "steep": 0, "flat": 1}, abs=1e-9)
    assert {k: v["effective"] for k, v in found.items()} == pytest.approx({"late": 0.5, "steep": 0, "flat": 1})
    assert np.isnan(robustness.multibench({"late": late}, late)["late"]["relative"])
    with pytest.raises(UsageError, match="'short'"):
        robustness.multibench({"short": late[:4]}, late)


def test_patterns_are_all_subsets_and_rows_blank_what_is_absent():
    assert robustness.patterns(["v", "a", "t"]) == [
        ("a", "t", "v"), ("a", "t"), ("a", "v"), ("t", "v"), ("a",), ("t",), ("v",),
    ]  # fmt: skip
    rows = robustness.pattern_rows(("a",), ["a", "t"], 4)
    np.testing.assert_array_equal(rows["a"], [0, 1, 2, 3])
    np.testing.assert_array_equal(rows["t"], [-1] * 4)
    with pytest.raises(UsageError, match="'x'"):
        robustness.pattern_rows(("x",), ["a"], 4)


def test_missing_rows_lose_the_share_asked_for():
    rows = robustness.missing_rows(50, ["a", "b"], "a", draws=3, seed=1)
    assert rows["a"].shape == (11, 3, 50)
    np.testing.assert_array_equal(rows["b"], np.broadcast_to(np.arange(50), (11, 3, 50)))
    lost = rows["a"] < 0
    np.testing.assert_array_equal(lost.sum(-1), np.repeat(np.arange(0, 51, 5)[:, None], 3, 1))
    assert not (lost[:-1] & ~lost[1:]).any()  # nested
    assert (np.where(lost, -1, np.arange(50)) == rows["a"]).all()
    assert (lost[5, 0] != lost[5, 1]).any()
    both = robustness.missing_rows(50, ["b", "a"], ALL, draws=3, seed=1)
    np.testing.assert_array_equal(both["a"], rows["a"])  # the same as by itself, and independent of the other
    share = ((both["a"] < 0) & (both["b"] < 0))[5].mean()
    assert 0.12 < share < 0.38
    assert (both["a"][-1] == -1).all() and (both["b"][-1] == -1).all()  # they stay, wholly absent
    other = robustness.missing_rows(50, ["a", "b"], "a", draws=3, seed=2)
    assert (other["a"] != rows["a"]).any()
    with pytest.raises(UsageError, match="'c'"):
        robustness.missing_rows(5, ["a", "b"], "c")


def every_pattern(names, draw, n=400):
    subsets = [*robustness.patterns(names), ()]
    return {subset: draw.uniform(size=(2, n)) for subset in subsets}


def test_missing_scores_are_those_of_the_masked_items():
    table = every_pattern("abc", np.random.default_rng(0), n=30)
    rows = robustness.missing_rows(30, "abc", ALL, rates=(0, 0.4, 1), draws=2)
    found = robustness.missing_scores(table, rows)
    for rate, draw, seed in itertools.product(range(3), range(2), range(2)):
        by_hand = [table[tuple(m for m in "abc" if rows[m][rate, draw, item] >= 0)][seed, item] for item in range(30)]
        assert found[rate, draw, seed] == pytest.approx(np.mean(by_hand))
    del table[()]
    with pytest.raises(UsageError, match=r"pattern \(\)"):
        robustness.missing_scores(table, rows)


def test_expected_missing_is_what_masks_give_on_average():
    table = every_pattern("abc", np.random.default_rng(0))
    means = {pattern: scores.mean(1) for pattern, scores in table.items()}
    rows = robustness.missing_rows(400, "abc", ALL, draws=40)
    expected = robustness.expected_missing(means, ALL)
    np.testing.assert_allclose(robustness.missing_scores(table, rows).mean(1), expected, atol=0.01)
    np.testing.assert_allclose(expected[[0, -1]], [means["a", "b", "c"], means[()]])
    single = robustness.expected_missing(means, "b")
    full, without = means["a", "b", "c"], means["a", "c"]
    np.testing.assert_allclose(single[3], 0.7 * full + 0.3 * without)
    np.testing.assert_allclose(robustness.missing_area(means, "b"), (full + without) / 2)
    two = {("a", "b"): 0.9, ("a",): 0.7, ("b",): 0.6, (): 0.5}
    assert robustness.expected_missing(two, ALL)[5] == pytest.approx((0.9 + 0.7 + 0.6 + 0.5) / 4)
    assert robustness.expected_missing({("a",): 0.9, (): 0.5}, "a")[10] == 0.5
    with pytest.raises(UsageError, match="'z'"):
        robustness.expected_missing(two, "z")


def test_corrupted_copies_keep_apart_and_hold_one_draw_turned_up():
    given, key = batch(), jax.random.key(0)
    found = robustness.corrupted(given, NOISE, (0, 0.5, 1), key)
    assert found.size == 18
    for field in ("target", "weight"):
        np.testing.assert_array_equal(getattr(found, field), np.tile(getattr(given, field), 3))
    np.testing.assert_array_equal(found.index, np.concatenate([given.index + 6 * copy for copy in range(3)]))
    np.testing.assert_array_equal(found.group[:6], given.group)
    assert len(np.unique(found.group)) == 9
    for name, stream in given.streams.items():  # severity 0 is the batch itself, bit for bit
        assert np.asarray(found.streams[name].values[:6]).tobytes() == stream.values.tobytes()
        np.testing.assert_array_equal(found.streams[name].mask[:6], stream.mask)
    error = [np.asarray(found.streams["a"].values[6 * c : 6 * c + 6]) - given.streams["a"].values for c in (1, 2)]
    np.testing.assert_allclose(2 * error[0], error[1], atol=1e-5)
    assert not np.asarray(found.streams["b"].mask[12:]).any()
    again = robustness.corrupted(given, NOISE, (0, 0.5, 1), key)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    alone = robustness.corrupted(given, {"a": NOISE["a"]}, (0, 0.5, 1), key)  # with others or by itself: the same noise
    np.testing.assert_array_equal(alone.streams["a"].values, found.streams["a"].values)
    np.testing.assert_array_equal(alone.streams["b"].values, np.tile(given.streams["b"].values, (3, 1, 1)))


def test_padding_stays_minus_one_and_a_view_keeps_the_copies():
    given = batch()
    given = given.replace(index=np.arange(6, dtype=np.int32), group=np.array([7, 7, 7, 2, 2, 9], np.int32))

    def view(one):
        card = Card("toy", "", dict.fromkeys(one.streams, "feature"), 2)
        return by_group(Dataset(card, dict.fromkeys(("train", "validation", "test"), one), "1", "", "")).splits["test"]

    noises = {"a": NOISE["a"]}
    found = robustness.corrupted(given, noises, (0, 1), jax.random.key(0), view=view)
    clean = view(given)
    assert found.size == 2 * clean.size
    np.testing.assert_array_equal(found.index[:3], clean.index)
    np.testing.assert_array_equal(found.index[3:], np.where(clean.index >= 0, clean.index + 6, -1))
    np.testing.assert_array_equal(found.group < 0, np.tile(clean.index < 0, (2, 1)))
    np.testing.assert_array_equal(found.streams["a"].values[:3], clean.streams["a"].values)
    changed = np.asarray(found.streams["a"].values[3:] != clean.streams["a"].values).any(-1)
    np.testing.assert_array_equal(changed, clean.streams["a"].mask)  # padding untouched
    # a label per step, given as such: -1 stays in both copies
    steps = robustness.corrupted(clean, noises, (0, 1), jax.random.key(0))
    np.testing.assert_array_equal(steps.index, found.index)
    np.testing.assert_array_equal(steps.group, found.group)
    named = given.replace(group=np.array(list("xxyyzz")))
    assert len(np.unique(robustness.corrupted(named, noises, (0, 1), jax.random.key(0)).group)) == 6
    with pytest.raises(UsageError, match="keep them apart"):
        robustness.corrupted(given, noises, (0, 1), jax.random.key(0), view=lambda b: jax.tree.map(lambda x: x[:5], b))


def test_raw_noise_enters_before_the_view_and_feature_noise_after_it():
    given = batch()

    def view(one):  # standardises, say
        return one.replace(streams={k: Stream(s.values * 100, s.mask) for k, s in one.streams.items()})

    raw = {"a": NOISES["image/gaussian"], "b": NOISES["feature/gaussian"]}
    found = robustness.corrupted(given, raw, (0, 1), jax.random.key(0), view=view)
    before = robustness.corrupted(given, raw, (0, 1), jax.random.key(0))
    error = {k: np.asarray(found.streams[k].values[6:]) - 100 * given.streams[k].values for k in "ab"}
    unviewed = {k: np.asarray(before.streams[k].values[6:]) - given.streams[k].values for k in "ab"}
    np.testing.assert_allclose(error["a"], 100 * unviewed["a"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(error["b"], unviewed["b"], atol=1e-3)


def test_what_cannot_be_corrupted_is_refused():
    for noises, levels, match in [({"x": NOISE["a"]}, (0, 1), "'x'"), (NOISE, (0, 2), "from 0 to 1"), (NOISE, (), "0")]:
        with pytest.raises(UsageError, match=match):
            robustness.corrupted(batch(), noises, levels, jax.random.key(0))
    for target, levels in [("c", (0, 1)), ("a", ())]:
        with pytest.raises(UsageError):
            robustness.sweep(Predictor(), batch(), target, NOISE, levels)


def test_a_sweep_compiles_once_and_gives_the_same_numbers_twice():
    given, predict, levels = batch(), Predictor(), (0, 0.3, 1)
    found = {t: robustness.sweep(predict, given, t, NOISE, levels, draws=2, keep=True) for t in ("a", "b", ALL)}
    assert predict.traces == 1 and predict.calls == 6
    again = robustness.sweep(Predictor(), given, "a", NOISE, levels, draws=2, keep=True)
    jax.tree.map(np.testing.assert_array_equal, again, found["a"])
    other = robustness.sweep(predict, given, "a", NOISE, levels, draws=2, seed=1, keep=True)
    assert (other.outputs != found["a"].outputs).any()

    clean = predict(given)
    truth = given.target[np.argsort(given.index)]
    right = (clean.argmax(-1) == truth).mean(-1)
    for one in found.values():
        assert one.scores.shape == (3, 2, 2) and one.outputs.shape == (3, 2, 2, 6, 2) and one.present.shape == (3, 2, 6)
        np.testing.assert_allclose(one.outputs[0], np.broadcast_to(clean, (2, 2, 6, 2)), rtol=1e-5)
        np.testing.assert_array_equal(one.scores[0], [right, right])
        np.testing.assert_array_equal(one.scores, (one.outputs.argmax(-1) == truth).mean(-1))
    assert (found["a"].outputs[1, 0] != found["a"].outputs[1, 1]).any()  # draws differ
    # all: the same noise on each as by itself, so in a linear model the effects add up
    effect = {t: found[t].outputs[1] - found[t].outputs[0] for t in found}
    np.testing.assert_allclose(effect["a"] + effect["b"], effect[ALL], atol=1e-4)


def test_a_sweep_by_parts_and_with_known_clean_outputs_is_the_same():
    given, predict, levels = batch(), Predictor(), (0, 0.2, 0.6, 1)
    whole = robustness.sweep(predict, given, ALL, NOISE, levels, draws=2, keep=True)
    parts = robustness.sweep(predict, given, ALL, NOISE, levels, draws=2, keep=True, at_once=3)
    np.testing.assert_allclose(parts.outputs, whole.outputs, rtol=1e-5, atol=1e-6)
    clean = predict(given)
    known = robustness.sweep(predict, given, ALL, NOISE, levels, draws=2, keep=True, clean=clean, at_once=2)
    np.testing.assert_array_equal(known.outputs[0, 0], clean)
    np.testing.assert_allclose(known.outputs, whole.outputs, rtol=1e-5, atol=1e-6)
    for one in (parts, known):
        np.testing.assert_array_equal(one.present, whole.present)
        np.testing.assert_array_equal(one.scores, whole.scores)
    assert robustness.sweep(predict, given, ALL, NOISE, levels, draws=1).outputs is None
    with pytest.raises(UsageError, match="clean outputs"):
        robustness.sweep(predict, given, ALL, NOISE, levels, draws=1, clean=clean[:, :3])


def test_presence_after_noise_and_scores_that_are_errors():
    given = batch()
    only = given.replace(streams={"b": given.streams["b"]})
    predict = lambda b: np.asarray(b.streams["b"].values.sum((1, 2)))[None, np.argsort(b.index)]  # noqa: E731
    found = robustness.sweep(predict, only, "b", {"b": NOISE["b"]}, (0, 1), draws=1, keep=True, metric="mae")
    assert found.present[0].all() and not found.present[1].any()
    truth = given.target[np.argsort(given.index)]
    np.testing.assert_allclose(found.scores[1, 0, 0], -truth.mean())  # all steps lost: it says 0


def test_combined_votes_broadcast_and_leave_the_absent_out():
    draw = np.random.default_rng(0)
    noisy, clean = draw.normal(size=(3, 2, 4, 5, 2)), draw.normal(size=(4, 5, 2))
    found = robustness.combined(decision.mean_of_logits, {"a": noisy, "b": clean})
    np.testing.assert_allclose(found, (noisy + clean) / 2)
    present = {"a": np.arange(15).reshape(3, 1, 1, 5) % 2 == 0, "b": np.ones(5, bool)}
    found = robustness.combined(decision.mean_of_logits, {"a": noisy, "b": clean}, present)
    np.testing.assert_allclose(found, np.where(present["a"][..., None], (noisy + clean) / 2, clean))
    prior = functools.partial(decision.prior_corrected_product, log_prior=np.log([0.5, 0.5]))
    assert robustness.combined(prior, {"a": noisy, "b": clean}, present).shape == noisy.shape
    with pytest.raises(UsageError, match="do not fit"):
        robustness.combined(decision.mean_of_logits, {"a": noisy, "b": clean[:, :3]})
