"""The embedded sets: the digits are the digits, and the synthetic answers are right."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mmjax import datasets
from mmjax.datasets import synthetic
from mmjax.errors import UsageError


def test_importing_the_package_loads_neither_tfds_nor_sklearn():
    code = "import sys, mmjax.datasets; print([m for m in ('tensorflow_datasets', 'sklearn') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_names_cards_and_unknown_ones():
    assert {"digits", "synthetic", "cmu_mosi"} <= set(datasets.names())
    for name in datasets.names():
        card = datasets.card(name)
        assert card.name == name and card.kinds and card.licence and card.source and set(card.noise) == set(card.kinds)
    with pytest.raises(UsageError, match=r"no data set 'mnits'; there are .*digits"):
        datasets.load("mnits")
    with pytest.raises(UsageError, match="digits has no option 'fold'; it has seed"):
        datasets.load("digits", fold=1)
    with pytest.raises(UsageError, match="seed is an integer"):
        datasets.card("digits", seed="x")


def test_digits_are_those_of_sklearn_and_split_once():
    from sklearn.datasets import load_digits

    dataset, truth = datasets.load("digits"), load_digits()
    numbers = np.concatenate([batch.group for batch in dataset.splits.values()])
    np.testing.assert_array_equal(np.sort(numbers), np.arange(1797))
    assert [batch.size for batch in dataset.splits.values()] == [1078, 360, 359]
    for batch in dataset.splits.values():
        upper, lower = batch.streams["upper"], batch.streams["lower"]
        assert upper.values.shape == (batch.size, 1, 32) and upper.mask.all() and upper.values.dtype == np.float32
        whole = np.concatenate([upper.values[:, 0], lower.values[:, 0]], axis=1) * 16
        np.testing.assert_array_equal(whole, truth.data[batch.group])
        np.testing.assert_array_equal(batch.target, truth.target[batch.group])
        assert np.bincount(batch.target).min() >= 0.08 * batch.size
    assert dataset.sha256 == datasets.load("digits").sha256 != datasets.load("digits", seed=1).sha256


def information(*columns, target):
    """Plug-in mutual information in bits, from counts."""

    def entropy(rows):
        counts = np.unique(rows, axis=0, return_counts=True)[1]
        return -(counts / counts.sum() * np.log2(counts / counts.sum())).sum()

    x = np.concatenate(columns, axis=1)
    return entropy(x) + entropy(target[:, None]) - entropy(np.concatenate([x, target[:, None]], axis=1))


def symbols(stream):
    """One integer for each distinct vector: the code is invertible and free of noise."""
    return np.unique(stream.values[:, 0], axis=0, return_inverse=True)[1].reshape(-1, 1)


@pytest.mark.parametrize(
    "bits",
    [
        dict(redundancy=1, unique=1, synergy=1),
        dict(redundancy=2, unique=(1, 0), synergy=0),
        dict(redundancy=0, unique=0, synergy=1),
        dict(redundancy=0, unique=(2, 1), synergy=2),
        dict(redundancy=1, unique=(0, 1, 0), synergy=1, modalities=3),
        dict(redundancy=0, unique=1, synergy=0, nuisance=1),
    ],
)
def test_empirical_information_equals_the_bits(bits):
    dataset = datasets.load("synthetic", sizes=(2048, 256, 512), **bits)
    batch, facts = dataset.splits["train"], dataset.facts
    shown = {name: symbols(stream) for name, stream in batch.streams.items()}
    for name, symbol in shown.items():
        assert information(symbol, target=batch.target) == pytest.approx(facts["information"][name], abs=1e-9)
    joint = information(*shown.values(), target=batch.target)
    assert joint == pytest.approx(facts["information"]["joint"], abs=1e-9)
    assert facts["redundancy"] + sum(facts["unique"].values()) + facts["synergy"] == facts["information"]["joint"]
    assert dataset.card.num_classes == 2**joint and facts["exact"]
    if bits.get("modalities", 2) == 3:  # a parity of three: no pair of modalities sees any of it
        for pair in itertools.combinations(facts["unique"], 2):
            seen = information(*(shown[name] for name in pair), target=batch.target)
            expected = facts["redundancy"] + sum(facts["unique"][name] for name in pair)
            assert seen == pytest.approx(expected, abs=1e-9)


def test_xor_cells_stand_equally_often_in_every_split():
    dataset = datasets.load("synthetic", redundancy=0, unique=0, synergy=1, sizes=(64, 32, 16))
    for batch in dataset.splits.values():
        cells = np.concatenate([symbols(stream) for stream in batch.streams.values()], axis=1)
        patterns, counts = np.unique(cells, axis=0, return_counts=True)
        assert len(patterns) == 4 and set(counts) == {batch.size // 4}
        by_cell = {tuple(cell): set(batch.target[(cells == cell).all(1)]) for cell in patterns}
        assert all(len(labels) == 1 for labels in by_cell.values())
        assert by_cell[(0, 0)] == by_cell[(1, 1)] != by_cell[(0, 1)] == by_cell[(1, 0)]


def test_sequences_sum_to_the_static_code_and_vary_in_length():
    dataset = datasets.load("synthetic", length=9, sizes=(200, 50, 50))
    stream = dataset.splits["train"].streams["a"]
    assert stream.values.shape == (200, 9, 8) and set(stream.mask.sum(1)) == {5, 6, 7, 8, 9}
    assert not stream.values[~stream.mask].any()
    sums = np.round(stream.values.sum(1), 4)
    assert len(np.unique(sums, axis=0)) == 8  # three bits: shared, private, half of the XOR
    np.testing.assert_array_equal((stream.values != 0).any(-1).sum(1), 3)


def test_noise_ends_the_exactness_and_says_so():
    dataset = datasets.load("synthetic", noise=0.5, sizes=(64, 8, 8))
    assert (
        not dataset.facts["exact"]
        and dataset.facts["bayes_accuracy"] is None
        and "no longer exact" in dataset.card.caution
    )
    assert len(np.unique(dataset.splits["train"].streams["a"].values)) > 64


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("prior", [(), (0.5, 0.3, 0.2)])
def test_gaussian_posteriors_against_scipy(length, prior):
    dataset = datasets.load(
        "synthetic", mode="gaussian", num_classes=3, dim=5, strength=(1.0, 2.0, 0.5), modalities=3, prior=prior,
        length=length, sizes=(8, 8, 40),
    )  # fmt: skip
    batch, posteriors = dataset.splits["test"], synthetic.log_posteriors(dataset, "test")
    log_prior, joint = np.log(dataset.facts["prior"]), 0
    for name, mean in synthetic.means(dataset.facts).items():
        np.testing.assert_allclose(mean @ mean.T, dataset.facts["strength"][name] ** 2 * np.eye(3), atol=1e-12)
        stream, likelihood = batch.streams[name], np.zeros((batch.size, 3))
        for i, y in itertools.product(range(batch.size), range(3)):
            items = stream.values[i][stream.mask[i]].astype(np.float64)
            density = multivariate_normal(mean[y] / np.sqrt(len(items)), np.eye(5))
            likelihood[i, y] = np.sum(density.logpdf(items))
        joint = joint + likelihood
        np.testing.assert_allclose(posteriors[name], normalise(likelihood + log_prior), atol=1e-12)
    np.testing.assert_allclose(posteriors["joint"], normalise(joint + log_prior), atol=1e-12)
    product = sum(posteriors[name] for name in batch.streams) - 2 * log_prior  # prior-corrected product
    np.testing.assert_allclose(normalise(product), posteriors["joint"], atol=1e-12)


def normalise(scores):
    from scipy.special import log_softmax

    return log_softmax(scores, axis=1)


def test_bayes_accuracy_by_monte_carlo():
    dataset = datasets.load(
        "synthetic", mode="gaussian", num_classes=3, strength=(1.0, 1.5), prior=(0.5, 0.3, 0.2), sizes=(1, 1, 40_000)
    )
    target, posteriors = dataset.splits["test"].target, synthetic.log_posteriors(dataset)
    expected = dataset.facts["bayes_accuracy_alone"] | {"joint": dataset.facts["bayes_accuracy"]}
    for name, accuracy in expected.items():
        measured = (posteriors[name].argmax(1) == target).mean()
        assert abs(measured - accuracy) < 4 * np.sqrt(accuracy * (1 - accuracy) / len(target)), name
        calibrated = np.exp(posteriors[name]).max(1).mean()  # an exact posterior expects its own accuracy
        assert abs(calibrated - accuracy) < 4 * np.sqrt(accuracy * (1 - accuracy) / len(target)), name


def test_bayes_accuracy_of_two_equal_classes_is_the_closed_form():
    from scipy.stats import norm

    from mmjax.datasets.synthetic.gaussian import bayes_accuracy

    assert bayes_accuracy(1.2, (0.5, 0.5)) == pytest.approx(norm.cdf(1.2 / np.sqrt(2)), abs=1e-12)
    assert bayes_accuracy(0.0, (0.7, 0.3)) == 0.7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(mode="bytes"), "'bits' or 'gaussian'"),
        (dict(modalities=1), "2 to 26"),
        (dict(redundancy=0, unique=(1, 0), synergy=0), "'b' has no bit"),
        (dict(redundancy=0, unique=0, synergy=0, nuisance=1), "1 to 12 bits"),
        (dict(unique=(1, 1, 1)), "one for each of 2"),
        (dict(dim=2), "too narrow for the 3 bits"),
        (dict(length=2), "too short for the 3 bits"),
        (dict(redundancy=0.5), "integers"),
        (dict(sizes=(1, 2)), "three numbers"),
        (dict(noise=-1), "standard deviation"),
        (dict(mode="gaussian", num_classes=9, dim=8), "orthogonal class means"),
        (dict(mode="gaussian", prior=(0.5, 0.5)), "4 positive numbers"),
        (dict(mode="gaussian", strength=-1.0), "from 0 up"),
    ],
)
def test_wrong_options_are_one_line(options, words):
    with pytest.raises(UsageError, match=words) as error:
        datasets.load("synthetic", **options)
    assert "\n" not in str(error.value)


def test_bits_have_no_posterior():
    with pytest.raises(UsageError, match="no exact posterior"):
        synthetic.log_posteriors(datasets.load("synthetic", sizes=(4, 4, 4)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits", {}),
        ("synthetic", {"length": 4, "sizes": (12, 4, 4), "modalities": 3}),
        ("synthetic", {"labels": "bits", "sizes": (12, 4, 4)}),
    ],
)
def test_the_tfds_builder_holds_what_load_gives(tmp_path, name, options):
    dataset = datasets.load(name, **options)
    source = datasets.source(name, "train", cache_dir=tmp_path, **options)
    assert len(source) == dataset.splits["train"].size
    for row in (0, 3, len(source) - 1):
        example, batch = source[row], dataset.splits["train"]
        np.testing.assert_array_equal(example["target"], batch.target[row])
        assert example["group"] == batch.group[row]
        for key, stream in batch.streams.items():
            items = stream.values[row][stream.mask[row]]
            np.testing.assert_array_equal(example[key].reshape(items.shape), items)


def test_bits_as_labels_are_the_bits_of_the_class():
    classes, labels = datasets.load("synthetic"), datasets.load("synthetic", labels="bits")
    assert labels.card.class_names == ("shared", "only in a", "only in b", "XOR")
    assert labels.card.num_classes == 4 and labels.card.primary_metric == "labels_f1_micro"
    for split, batch in classes.splits.items():
        np.testing.assert_array_equal(labels.splits[split].target @ (1 << np.arange(4)), batch.target)
        np.testing.assert_array_equal(labels.splits[split].streams["a"].values, batch.streams["a"].values)
    with pytest.raises(UsageError, match="labels is 'class' or, with mode 'bits', 'bits', got 'bits'"):
        datasets.load("synthetic", mode="gaussian", labels="bits")
