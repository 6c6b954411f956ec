"""Plans of buckets against every partition; what a feed makes of them."""

import itertools
import json

import jax
import numpy as np
import optax
import pytest

from mmjax.buckets import Bucketed, plan_buckets
from mmjax.data import Example, Field, Records, ordered_batches, size, steps_per_epoch, stream_batches
from mmjax.encoders import BagOfWords
from mmjax.errors import UsageError
from mmjax.fusion import Concat
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.sharding import make_mesh
from mmjax.stream import Batch, Stream
from mmjax.streaming import fit_streaming
from mmjax.tasks import Classification
from mmjax.training import Train

RNG = np.random.default_rng(0)


def least_padding(lengths, shapes):
    """Items of the best partition of the sorted lengths into stretches, by trying each."""
    lengths = np.sort(lengths)
    best = np.inf
    for count in range(1, shapes + 1):
        for cuts in itertools.combinations(range(1, len(lengths)), count - 1):
            parts = np.split(lengths, cuts)
            best = min(best, sum(part.max() * len(part) for part in parts))
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shapes", [1, 2, 3, 4])
def test_no_partition_has_less_padding(seed, shapes):
    lengths = np.random.default_rng(seed).integers(1, 30, 11)
    plan = plan_buckets({"text": lengths}, shapes=shapes, tokens=60)
    assert plan.padded == least_padding(lengths, shapes) and len(plan.rows) <= shapes
    assert plan.waste == pytest.approx(1 - lengths.sum() / plan.padded)
    for bucket, rows in enumerate(plan.rows):
        length = plan.lengths[bucket]["text"]
        assert lengths[plan.member == bucket].max() == length and rows == 60 // length


def test_two_sequences_an_example():
    """Against all stretches of the order by total length."""
    source = RNG.integers(1, 15, 12)
    target = np.maximum(source + RNG.integers(-3, 4, 12), 1)
    plan = plan_buckets({"source": source, "target": target}, shapes=3, tokens=100, multiple=2)
    order = np.argsort(source + target)
    groups = np.flatnonzero(np.diff((source + target)[order])) + 1  # equal totals stay together
    best = min(
        sum((source[part].max() + target[part].max()) * len(part) for part in np.split(order, cuts))
        for count in range(3)
        for cuts in itertools.combinations(groups, count)
    )
    assert plan.padded == best and all(rows % 2 == 0 for rows in plan.rows)
    assert all(rows * sum(shape.values()) <= 100 for rows, shape in zip(plan.rows, plan.lengths))


def test_what_is_cut_and_what_is_missing():
    plan = plan_buckets({"text": np.array([0, 2, 50])}, shapes=9, tokens=10, longest={"text": 5})
    assert [lengths["text"] for lengths in plan.lengths] == [1, 2, 5] and plan.tokens == 7
    assert "3 examples in 3 batches of 3 shapes (10 x 1, 5 x 2, 2 x 5 of text): 12.5%" in plan.report()
    assert "in one shape it would be 53.3%" in plan.report()


def test_a_schedule_has_every_example_once():
    plan = plan_buckets({"text": RNG.integers(1, 20, 57)}, shapes=4, tokens=40)
    for generator in (None, np.random.default_rng(1)):
        batches = plan.schedule(generator)
        assert len(batches) == plan.steps
        assert sorted(np.concatenate([rows[counts] for _, rows, counts in batches])) == list(range(57))
        for bucket, rows, _ in batches:
            assert len(rows) == plan.rows[bucket] and (plan.member[rows] == bucket).all()
    first, second = (np.random.default_rng(seed) for seed in (1, 2))
    assert [b for b, *_ in plan.schedule(first)] != [b for b, *_ in plan.schedule(second)]


LENGTHS = np.array([3, 1, 6, 2, 6, 5, 1, 2, 3])
TEXTS = [np.arange(length) + 10 * i for i, length in enumerate(LENGTHS)]


def in_memory():
    values, mask = np.zeros((9, 6), np.int32), np.zeros((9, 6), bool)
    for i, text in enumerate(TEXTS):
        values[i, : len(text)], mask[i, : len(text)] = text, True
    number = np.arange(9, dtype=np.int32)
    return Batch({"text": Stream(values, mask)}, Stream(values, mask), np.ones(9, np.float32), number, number)


def as_records():
    def example(text, generator):
        return Example({"text": text}, text)

    return Records(TEXTS, example, {"text": (6, (), np.int32)}, target=Field(length=6))


@pytest.mark.parametrize("source", [in_memory, as_records])
def test_the_feed_of_a_plan(source):
    """All examples, uncut, in few shapes; the same ones again from the middle of an epoch; the parts of two hosts."""
    plan = plan_buckets({"text": LENGTHS, "target": LENGTHS}, shapes=3, tokens=24, multiple=2)
    feed = Bucketed(source(), plan)
    assert size(feed) == 9 and steps_per_epoch(feed, 99) == plan.steps
    shapes, seen = set(), []
    epoch = list(stream_batches(feed, 99, seed=0, steps=plan.steps))
    for batch in epoch:
        shapes.add(batch.streams["text"].mask.shape)
        assert batch.target.mask.shape == batch.streams["text"].mask.shape
        for row in np.flatnonzero(batch.weight):
            number = int(batch.index[row])
            seen.append(number)
            for stream in (batch.streams["text"], batch.target):
                assert stream.values[row][stream.mask[row]].tolist() == TEXTS[number].tolist()
        assert (batch.index[batch.weight == 0] == -1).all()
    assert sorted(seen) == list(range(9)) and len(shapes) == len(plan.rows) == 3
    again = list(stream_batches(feed, 99, seed=0, start_step=2, steps=plan.steps))
    jax.tree.map(np.testing.assert_array_equal, again, epoch[2:])
    parts = [list(stream_batches(feed, 99, seed=0, steps=plan.steps, process_index=i, process_count=2)) for i in (0, 1)]
    whole = [jax.tree.map(lambda a, b: np.concatenate([a, b]), *pair) for pair in zip(*parts)]
    for a, b in zip(whole, epoch):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.index, b.index)
    ordered = [batch.index[batch.weight > 0] for batch in ordered_batches(feed, 99)]
    assert sorted(np.concatenate(ordered)) == list(range(9))
    assert not np.array_equal(epoch[0].index, next(stream_batches(feed, 99, seed=1)).index)


def test_words_of_nested_text_are_cut():
    """Captions ``[batch, captions, words]``: what the longest of an example has is its length."""
    captions = [[[1, 2], [3]], [[4, 5, 6, 7], [8]]]

    def example(nested, generator):
        return Example({"text": [np.array(words) for words in nested]}, 0)

    records = Records(captions, example, {"text": ((2, 9), (), np.int32)})
    plan = plan_buckets({"text": np.array([2, 4])}, shapes=2, tokens=4)
    batches = list(ordered_batches(Bucketed(records, plan), 1))
    assert [batch.streams["text"].values.tolist() for batch in batches] == [
        [[[1, 2], [3, 0]], [[0, 0], [0, 0]]],
        [[[4, 5, 6, 7], [8, 0, 0, 0]]],
    ]
    pieces = [Bucketed(one, plan).of(0).streams["text"].values.shape for one in (records.batch(*all_of(2), (0,)),)]
    assert pieces == [(2, 2, 2)]


def all_of(count):
    return np.arange(count), np.ones(count, bool)


def test_a_run_learns_from_buckets(tmp_path):
    """Which of two words a text has more of; a broken text is named by its number."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, 12, 60)
    values, mask = np.zeros((60, 12), np.int32), np.arange(12) < lengths[:, None]
    label = np.arange(60, dtype=np.int32) % 2
    values[:] = np.where(rng.random((60, 12)) < 0.9, label[:, None], 1 - label[:, None])
    values[:, 0] = label
    number = np.arange(60, dtype=np.int32)
    whole = Batch({"text": Stream(values, mask)}, label, np.ones(60, np.float32), number, number)
    plan = plan_buckets({"text": lengths}, shapes=2, tokens=48)
    model = Multimodal({"text": BagOfWords(4, 2)}, Concat(4), ClassificationHead(2))
    train = Train(epochs=6, batch_size=5, learning_rate=0.05, optimizer=optax.adam)
    splits = {"train": Bucketed(whole, plan), "validation": Bucketed(whole, plan)}
    mesh = make_mesh(devices=jax.devices()[:1])
    fit = fit_streaming(model, Classification(2), train, splits, workdir=tmp_path / "a", mesh=mesh)
    assert fit.metrics["validation/accuracy"] > 0.8
    assert json.loads((tmp_path / "a" / "config.json").read_text())["buckets of train"][1] == list(plan.rows)
    bad = whole.replace(target=np.where(number == 41, 7, label))
    with pytest.raises(UsageError, match=r"example 41: label 7 is not one of 2 classes"):
        fit_streaming(
            model, Classification(2), train, {**splits, "train": Bucketed(bad, plan)}, workdir=tmp_path / "b", mesh=mesh
        )


@pytest.mark.parametrize(
    "lengths, options, message",
    [
        ({"a": [1, 2], "b": [1]}, {}, r"the same ones for each name, got \{'a': 2, 'b': 1\}"),
        ({"a": []}, {}, r"one or more examples"),
        ({"a": [1, 9]}, {"tokens": 17, "multiple": 2}, r"tokens=17 are too few: 2 of the longest examples have 18"),
        ({"a": [1]}, {"shapes": 0}, r"shapes and multiple must be at least 1, got 0 and 1"),
    ],
)
def test_says_what_would_be_right(lengths, options, message):
    with pytest.raises(UsageError, match=message):
        plan_buckets({name: np.array(each) for name, each in lengths.items()}, **{"shapes": 2, "tokens": 20, **options})


def test_a_plan_of_other_data_is_refused():
    plan = plan_buckets({"text": LENGTHS[:5]}, shapes=2, tokens=24)
    with pytest.raises(UsageError, match=r"a plan of 5 examples does not fit 9"):
        Bucketed(in_memory(), plan)
    with pytest.raises(UsageError, match=r"the plan is of no stream 'words'; there are \['text'\]"):
        Bucketed(in_memory(), plan_buckets({"words": LENGTHS}, shapes=2, tokens=24))
