"""What a batch holds is a pure function of its number: hosts, restarts and threads change nothing."""

import itertools
import threading

import jax
import numpy as np
import pytest

from mmjax.data import Example, Records, ordered_batches, read_ahead, steps_per_epoch, stream_batches
from mmjax.errors import UsageError
from tests.toy import make_batch

DATA = make_batch(10)


def jitter(batch, rng):
    """Adds noise to every value."""
    streams = {
        name: s.replace(values=s.values + rng.normal(size=s.values.shape).astype(np.float32))
        for name, s in sorted(batch.streams.items())
    }
    return batch.replace(streams=streams)


class Source:
    """Records as TFDS gives them: dictionaries by number; some cannot be read."""

    def __init__(self, size, broken=()):
        self.size, self.broken = size, broken

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError("image file is truncated")
        return {"number": i, "label": i % 3}


def to_example(record, rng):
    words = np.arange(1, 1 + record["number"] % 4, dtype=np.int32)  # every fourth has no text
    noisy = record["number"] + rng.normal(size=(1, 2))
    return Example({"text": words, "image": noisy}, record["label"], record["number"] // 2)


def make_records(size=10, broken=(), **kwargs):
    items = {"text": (2, (), np.int32), "image": (1, (2,), np.float32)}
    return Records(Source(size, broken), to_example, items, **kwargs)


def take(source, count, **kwargs):
    return list(itertools.islice(stream_batches(source, 4, seed=5, **kwargs), count))


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("source, transforms", [(DATA, (jitter,)), (make_records(), ())])
def test_global_batches_are_the_same_for_any_number_of_hosts_and_any_start(source, transforms):
    expected = take(source, 7, transforms=transforms)
    for hosts in (2, 4):
        parts = [
            take(source, 7, transforms=transforms, process_index=i, process_count=hosts, threads=2)
            for i in range(hosts)
        ]
        assert_same([jax.tree.map(lambda *x: np.concatenate(x), *step) for step in zip(*parts)], expected)
    assert_same(take(source, 3, start_step=4, transforms=transforms), expected[4:])
    other = next(stream_batches(source, 4, seed=6, transforms=transforms))
    assert not np.array_equal(other.index, expected[0].index)


@pytest.mark.parametrize("source", [DATA, make_records()])
def test_an_epoch_holds_every_example_once(source):
    assert steps_per_epoch(source, 4) == 3
    batches = take(source, 6)
    epochs = [np.concatenate([b.index[b.weight > 0] for b in batches[i : i + 3]]) for i in (0, 3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(*epochs)
    assert [b.weight.sum() for b in batches] == [4, 4, 2, 4, 4, 2]
    assert all((b.index >= 0).sum() == b.weight.sum() and b.size == 4 for b in batches)


@pytest.mark.parametrize("source", [DATA, make_records()])
def test_evaluation_is_in_order_and_fills_up_with_weight_zero(source):
    batches = list(ordered_batches(source, 4))
    np.testing.assert_array_equal(np.concatenate([b.index for b in batches])[:10], np.arange(10))
    np.testing.assert_array_equal(batches[-1].weight, [1, 1, 0, 0])


def test_rows_of_a_batch_belong_together():
    for batch in take(DATA, 3):
        real = batch.weight > 0
        np.testing.assert_array_equal(batch.target[real], DATA.target[batch.index[real]])
        np.testing.assert_array_equal(batch.streams["a"].values[real], DATA.streams["a"].values[batch.index[real]])


class TestRecords:
    def test_sequences_are_cut_and_padded_and_empty_ones_are_absent(self):
        batch = next(ordered_batches(make_records(), 5))
        np.testing.assert_array_equal(batch.streams["text"].values, [[0, 0], [1, 0], [1, 2], [1, 2], [0, 0]])
        np.testing.assert_array_equal(batch.streams["text"].present, [False, True, True, True, False])
        np.testing.assert_array_equal(batch.target, [0, 1, 2, 0, 1])
        np.testing.assert_array_equal(batch.group, [0, 0, 1, 1, 2])

    def test_a_label_per_step(self):
        def labelled(record, rng):
            return Example({"x": np.ones((3, 1))}, np.arange(record["number"] + 1), record["number"])

        records = Records(Source(2), labelled, {"x": (3, (1,), np.float32)}, steps=3)
        batch = next(ordered_batches(records, 2))
        np.testing.assert_array_equal(batch.target, [[0, 0, 0], [0, 1, 0]])
        np.testing.assert_array_equal(batch.index, [[0, -1, -1], [3, 4, -1]])
        np.testing.assert_array_equal(batch.group, [[0, -1, -1], [1, 1, -1]])

    def test_a_bad_record_is_left_out_and_counted(self):
        records = make_records(broken=(3,), budget=1)
        good, bad = next(ordered_batches(make_records(), 5)), next(ordered_batches(records, 5))
        np.testing.assert_array_equal(bad.weight, [1, 1, 1, 0, 1])
        assert not any(stream.mask[3].any() for stream in bad.streams.values()) and records.bad == {3}
        keep = np.array([0, 1, 2, 4])
        assert_same(jax.tree.map(lambda x: x[keep], bad), jax.tree.map(lambda x: x[keep], good))
        list(ordered_batches(records, 5))  # the same record again is no other

    def test_too_many_bad_records_end_the_run(self):
        with pytest.raises(UsageError, match=r"record [36] cannot be read \(OSError: image file is trunc.*borne: 1"):
            list(ordered_batches(make_records(broken=(3, 6), budget=1), 5))

    def test_reads_a_tfds_data_source(self, tmp_path):
        import tensorflow_datasets as tfds

        from mmjax.datasets.store import _quiet

        class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            """Two sequences and a class."""

            VERSION = tfds.core.Version("1.0.0")
            pkg_dir_path = tmp_path

            def _info(self):
                number = tfds.features.Scalar(np.int64)
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict({"number": number, "label": number})
                )

            def _split_generators(self, manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i in range(10):
                    yield i, {"number": i, "label": i % 3}

        with _quiet():
            builder = Pairs(data_dir=tmp_path, file_format="array_record")
            builder.download_and_prepare()
            source = builder.as_data_source(split="train")
        records = Records(source, to_example, make_records().items)
        found = take(records, 3)
        numbers = np.concatenate([b.group for b in found])
        assert sorted(numbers[numbers >= 0]) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_what_cannot_be_streamed_is_said():
    with pytest.raises(UsageError, match="batch_size=4 does not divide over 3 processes"):
        take(DATA, 1, process_count=3)
    with pytest.raises(UsageError, match="empty"):
        take(jax.tree.map(lambda x: x[:0], DATA), 1)
    with pytest.raises(UsageError, match="to_example"):
        take(make_records(), 1, transforms=(jitter,))


def test_what_is_read_ahead_comes_in_order_from_one_thread_and_errors_in_their_place():
    threads = []

    def square(x):
        threads.append(threading.current_thread())
        if x == 5:
            raise ValueError("five")
        return x * x

    assert list(read_ahead(iter(range(4)), square)) == [0, 1, 4, 9]
    assert len(set(threads)) == 1 and threads[0] is not threading.current_thread()
    feed = read_ahead(iter(range(9)), square)
    assert [next(feed) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="five"):
        next(feed)
    assert list(read_ahead(iter(()), square)) == []


def test_closed_it_reads_no_more_than_was_begun():
    taken = []
    feed = read_ahead(iter(range(100)), taken.append, count=2)
    next(feed)
    feed.close()
    assert taken == list(range(len(taken))) and len(taken) <= 3


def test_nested_sequences_are_cut_and_padded_at_both_levels():
    sentences = [[], [[1, 2, 3]], [[1], [2, 2]], [[7, 7, 7, 7], [], [5]]]

    def nested(record, rng):
        texts = [np.asarray(words, np.int32) for words in sentences[record["number"]]]
        return Example({"text": texts}, 0)

    (batch,) = ordered_batches(Records(Source(4), nested, {"text": ((2, 3), (), np.int32)}), 4)
    text = batch.streams["text"]
    assert text.values.shape == text.mask.shape == (4, 2, 3) and batch.weight.all()
    assert text.mask.sum(-1).tolist() == [[0, 0], [3, 0], [1, 2], [3, 0]]
    assert text.values[2].tolist() == [[1, 0, 0], [2, 2, 0]] and text.values[3].tolist() == [[7, 7, 7], [0, 0, 0]]
