"""What the tables on frozen towers share."""

import dataclasses
import pathlib

import jax
import numpy as np

from experiments._towers import features_folder
from mmjax import datasets
from mmjax.evaluation.measures.noise import default_noises
from mmjax.experiment import noise_sweep
from tests.experiment.small import table


def pictures():
    """Twelve pictures of a class each."""
    images = np.random.default_rng(0).integers(0, 255, (12, 4, 4, 3), np.uint8)
    split = np.repeat([0, 1, 2], 4)
    return datasets.from_arrays({"image": images}, np.tile([0, 1, 2], 4), split=split, kinds={"image": "image"})


def test_features_stand_beside_the_prepared_data_but_not_those_of_a_split_that_is_met_once():
    data = dataclasses.replace(pictures(), cache_dir=pathlib.Path("prepared"), transient=("test",))
    assert features_folder(data, "train") == pathlib.Path("prepared/features")
    assert features_folder(data, "test") is None


def test_noisy_copies_are_met_once_by_the_view_of_the_table_and_of_a_row():
    met = []

    def view(data):
        met.append((data.transient, data.splits["test"].size))
        return data

    raw = pictures()
    noises = {"image": default_noises(raw.card.kinds)["image"]}
    noisy = noise_sweep._noisy(table(dataset=raw, view=view), raw, raw, noises, {}, [0.5, 1.0], jax.random.key(0))
    assert set(met) == {(("test",), 8)}
    assert noisy.transient == ("test",)  # the view of a row comes after
