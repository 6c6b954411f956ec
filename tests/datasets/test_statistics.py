"""A sequence as a vector, against NumPy item by item; whatever stands in padding, the same."""

import dataclasses

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.statistics import has_sequences, item_statistics, statistics
from mmjax.errors import UsageError
from mmjax.experiment.baselines import logistic

SPLIT = np.repeat([0, 1, 2], 4)
MASK = np.arange(7) < np.array([7, 3, 1, 2, 5, 6, 4, 0, 7, 1, 2, 3])[:, None]  # the eighth has none
VALUES = np.random.default_rng(0).normal(size=(12, 7, 2)).astype(np.float32)


def arrays(streams, **options):
    return datasets.from_arrays(streams, np.arange(12) % 2, split=SPLIT, **options)


def vectors(dataset, name):
    return np.concatenate([batch.streams[name].values[:, 0] for batch in dataset.splits.values()])


def test_means_deviations_and_quantiles_of_the_whole_and_of_each_third():
    items = np.array([[0.0], [1.0], [2.0], [4.0], [8.0], [16.0]])
    parts = [items, items[:2], items[2:4], items[4:]]
    expected = np.concatenate([[p.mean(), p.std(), *np.quantile(p, [0.1, 0.5, 0.9])] for p in parts])
    np.testing.assert_allclose(item_statistics(items), expected)
    one = item_statistics(np.array([[3.0, 5.0]])).reshape(4, 5, 2)
    np.testing.assert_array_equal(one[:, [0, 2, 3, 4]], np.broadcast_to([3.0, 5.0], (4, 4, 2)))
    assert not one[:, 1].any()  # no deviation
    four = item_statistics(np.arange(4.0)[:, None]).reshape(4, 5)[:, 0]
    np.testing.assert_allclose(four, [1.5, 0.5, 1.5, 2.5])  # thirds of four items share the two in the middle


def test_only_real_items_count_and_an_absent_modality_stays_absent():
    poisoned = np.where(MASK[..., None], VALUES, np.nan)
    made = statistics(arrays({"x": (poisoned, MASK)}))
    x = vectors(made, "x")
    assert x.shape == (12, 40) and np.isfinite(x).all()
    for number in range(12):
        if MASK[number].any():
            np.testing.assert_allclose(x[number], item_statistics(VALUES[number][MASK[number]]), rtol=1e-5, atol=1e-6)
    present = np.concatenate([batch.streams["x"].mask[:, 0] for batch in made.splits.values()])
    np.testing.assert_array_equal(present, MASK.any(1))
    assert not x[7].any()
    datasets.check(made)
    holes = MASK & (np.arange(7) != 1)  # a hole is closed, not filled
    x = vectors(statistics(arrays({"x": (poisoned, holes)})), "x")
    np.testing.assert_allclose(x[0], item_statistics(np.delete(VALUES[0], 1, axis=0)), rtol=1e-5, atol=1e-6)


def test_ids_become_a_bag_of_the_words_of_train():
    ids = np.array([[1, 1, 2], [3, 1, 0], [2, 2, 2], [1, 9, 9]] * 3)
    ids[8] = [77, 1, 77]  # a word that train lacks
    made = statistics(arrays({"text": (ids, ids > 0)}, kinds={"text": "text"}))
    bag = vectors(made, "text")
    np.testing.assert_allclose(bag[:4], [[2 / 3, 1 / 3, 0, 0], [0.5, 0, 0.5, 0], [0, 1, 0, 0], [1 / 3, 0, 0, 2 / 3]])
    np.testing.assert_allclose(bag[8], [1 / 3, 0, 0, 0])
    assert made.card.kinds == {"text": "feature"}


def test_vectors_stay_and_wide_items_become_their_principal_components():
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(12, 5, 3)) @ rng.normal(size=(3, 300))
    made = statistics(arrays({"v": VALUES[:, 0], "wide": wide}))
    np.testing.assert_array_equal(vectors(made, "v"), VALUES[:, 0])
    assert vectors(made, "wide").shape == (12, 20 * 20)  # of the four examples of train there are 20 items
    pictures = rng.integers(0, 255, (12, 8, 8, 1)).astype(np.uint8)
    made = statistics(arrays({"p": pictures}, kinds={"p": "image"}))
    np.testing.assert_allclose(vectors(made, "p"), pictures.reshape(12, 64) / 255, rtol=1e-6)
    with pytest.raises(UsageError, match="20 features, got most=19"):
        statistics(arrays({"v": VALUES}), most=19)
    with pytest.raises(UsageError, match="no modality 'smell'; it has v"):
        statistics(arrays({"v": VALUES}), ["smell"])


def test_a_waveform_is_told_by_its_spectrum():
    """Tones of one loudness: their samples have the same mean, deviation and quantiles."""
    time = np.arange(4000) / 8000
    pitch = np.where(np.arange(12) % 2, 400, 1600)
    waves = np.sin(2 * np.pi * pitch[:, None] * time + np.arange(12)[:, None])
    waves[7] = 0
    mask = np.ones((12, 4000), bool)
    mask[5, 2000:] = mask[3, 100:] = False
    made = statistics(arrays({"sound": (waves, mask)}, kinds={"sound": "audio"}))
    bands = vectors(made, "sound").reshape(12, 4, 5, -1)[:, 0, 0]
    loudest = bands.argmax(1)
    low, high = loudest[np.arange(12) % 2 == 1], loudest[np.arange(12) % 2 == 0]
    assert set(np.delete(low, 3)) == {low[0]} and set(high) == {high[0]} and low[0] < high[0]


def test_what_has_sequences():
    assert has_sequences(arrays({"x": (VALUES, MASK), "v": VALUES[:, 0]}))
    assert not has_sequences(arrays({"v": VALUES[:, 0]}))
    labels = np.zeros((12, 3), np.int32)  # several labels an example, of which no row here is made
    several = arrays({"x": (VALUES, MASK)})
    marked = {name: batch.replace(target=labels[: batch.size]) for name, batch in several.splits.items()}
    assert not has_sequences(dataclasses.replace(several, splits=marked))
    video = arrays({"x": (VALUES, MASK)}, group=np.arange(12) // 2)
    assert not has_sequences(datasets.views.by_group(video))  # a label per step: an item is no example of its own


def test_order_and_spread_that_padding_hides_from_a_flat_model():
    """The class is the deviation of the items: linear in the statistics, not in the padded numbers."""
    rng = np.random.default_rng(2)
    target = rng.integers(0, 2, 300)
    mask = np.arange(30) < rng.integers(10, 31, 300)[:, None]
    x = rng.normal(size=(300, 30, 3)) * np.where(target, 1.5, 1.0)[:, None, None]
    data = datasets.from_arrays({"x": (x, mask)}, target, split=np.repeat([0, 1, 2], 100))
    right = {}
    for name, view in {"flat": lambda data: data, "statistics": statistics}.items():
        scores = logistic(view(data), 0, {}, C=0.01, refit=False)["test"]
        right[name] = (scores.argmax(1) == data.splits["test"].target).mean()
    assert right["flat"] < 0.65 and right["statistics"] > 0.9
