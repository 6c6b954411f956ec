"""Deep CCA: canonical coordinates of moving averages against the closed form, and what linear CCA cannot see."""

import functools

import jax
import numpy as np
import pytest

from mmjax.correlation import fit_cca
from mmjax.deep_cca import canonical_maps, paired_moments
from mmjax.dual_encoder import item_pairs
from mmjax.encoders import FeatureMLP
from mmjax.errors import UsageError
from mmjax.losses import total_correlation
from mmjax.models import DeepCCA, DualEncoder
from mmjax.resident import fit
from mmjax.retrieval import Retrieval
from mmjax.stream import Batch, Stream
from mmjax.training import Train

RIDGE = 1e-4


def related(rows, seed=0, captions=1):
    """Both sides see two numbers through maps and noise of their own; each caption has its own noise."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, 1, 2))
    maps = np.random.default_rng(99).normal(size=(2, 2, 4))
    image, text = (hidden @ one + [1.0, 0, 3, 0] for one in maps)
    text = text + 0.3 * rng.normal(size=(rows, captions, 4))
    image = image + 0.3 * rng.normal(size=image.shape)
    return {"image": Stream.of(image.astype(np.float32)), "text": Stream.of(text.astype(np.float32))}


def batch_of(streams):
    number = np.arange(len(streams["image"].mask), dtype=np.int32)
    return Batch(streams, number, np.ones(len(number), np.float32), number, number)


@functools.partial(jax.jit, static_argnums=0)
def step(model, variables, streams):
    """What a batch of train gives, and the moments after it."""
    return model.apply(variables, streams, train=True, mutable=["moments"])


def averaged(model, streams):
    """The model after one batch."""
    variables = jax.jit(model.init)(jax.random.key(0), streams)
    return {**variables, **step(model, variables, streams)[1]}


def test_embeddings_are_canonical_coordinates_times_their_correlations():
    """After one batch of captions the cosines are those of the closed form on the same pairs, whatever the momentum."""
    streams, new = related(50, captions=3), related(9, seed=1, captions=3)
    left, right, there = (np.asarray(x) for x in item_pairs(streams["image"], streams["text"]))
    assert there.all() and left.shape == right.shape == (150, 4)
    fitted = fit_cca({"image": left, "text": right}, 4, ridge=RIDGE)
    model = DeepCCA({}, dim=None, several=("text",), momentum=0.9, ridge=RIDGE)
    found = jax.jit(model.apply)(averaged(model, streams), new).embeddings
    expected = {}
    for name in ("image", "text"):
        turned = fitted.transform({name: np.asarray(new[name].values).reshape(-1, 4)})[name] * fitted.values
        expected[name] = turned / np.linalg.norm(turned, axis=-1, keepdims=True)
    cosines = np.asarray(found["image"].values).reshape(-1, 4) @ np.asarray(found["text"].values).reshape(-1, 4).T
    np.testing.assert_allclose(cosines, expected["image"] @ expected["text"].T, atol=2e-3)
    assert np.diag(cosines[:, ::3]).mean() > cosines.mean() + 0.5  # pairs are nearer than others


def test_averages_are_those_of_the_batches_and_rows_that_are_not_there_say_nothing():
    model = DeepCCA({}, dim=None, momentum=0.75, ridge=RIDGE)
    first, second = related(30), related(30, seed=2)
    variables = averaged(model, first)
    _, changed = step(model, variables, second)
    moments = changed["moments"]["average"]
    each = [paired_moments(*item_pairs(one["image"], one["text"])) for one in (first, second)]
    assert moments["weight"] == pytest.approx(1 - 0.75**2)
    for name in ("left", "left_right", "right_right"):
        np.testing.assert_allclose(moments[name], 0.25 * (0.75 * each[0][name] + each[1][name]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(each[0]["left_left"], np.cov(first["image"].values[:, 0].T), rtol=1e-4, atol=1e-5)
    holes = {name: one.absent(np.arange(30) >= 20) for name, one in first.items()}
    holes["image"] = holes["image"].replace(
        values=np.where(holes["image"].mask[..., None], first["image"].values, np.nan)
    )
    some = paired_moments(*item_pairs(holes["image"], holes["text"]))
    np.testing.assert_allclose(some["left_left"], np.cov(first["image"].values[:20, 0].T), rtol=1e-4, atol=1e-5)
    none = {name: one.absent(np.ones(30, bool)) for name, one in first.items()}
    _, same = step(model, variables, none)
    jax.tree.map(np.testing.assert_array_equal, same["moments"], variables["moments"])


def test_nothing_is_learned_through_the_maps_and_before_any_batch_they_are_finite():
    model, streams = DeepCCA({}, dim=3, ridge=RIDGE), related(20)
    variables = jax.jit(model.init)(jax.random.key(0), streams)
    assert not variables["moments"]["average"]["weight"]
    assert all(np.isfinite(one.values).all() for one in jax.jit(model.apply)(variables, streams).embeddings.values())
    mapped = jax.jit(jax.vmap(lambda moments: canonical_maps(moments, RIDGE)))
    maps = mapped(jax.tree.map(lambda x: x[None], variables["moments"]["average"]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(maps))  # seeds are mapped

    def through_the_maps(coordinates):
        moments = paired_moments(coordinates, coordinates**2, np.ones(len(coordinates), bool))
        return sum(jax.numpy.square(moments[name]).sum() for name in ("left", "right", "left_left", "left_right"))

    value, slope = jax.jit(jax.value_and_grad(through_the_maps))(streams["image"].values[:, 0])
    assert value > 1 and not np.any(slope)


def test_the_loss_is_one_minus_the_mean_correlation_of_the_pairs():
    model, streams = DeepCCA({}, dim=None, several=("text",), ridge=RIDGE), related(40, captions=2)
    outputs, _ = step(model, averaged(model, streams), streams)
    left, right, _ = item_pairs(streams["image"], streams["text"])
    expected = 1 - total_correlation(left, right) / 4
    task = Retrieval("image", "text", method="dcca")
    np.testing.assert_allclose(jax.jit(task.loss)(outputs, batch_of(streams)), np.full(40, expected), rtol=1e-4)
    blocks = Retrieval("image", "text", method="dcca", block=20)._loss_in_blocks(outputs, batch_of(streams))
    assert blocks.shape == (40,) and len(np.unique(blocks)) == 2
    plain = DualEncoder({}, dim=4).init_with_output(jax.random.key(0), related(5))[0]
    with pytest.raises(UsageError, match="'dcca' is for DeepCCA, whose outputs have coordinates"):
        task.loss(plain, batch_of(related(5)))
    with pytest.raises(ValueError, match=r"DeepCCA is of two streams, got \['image'\]"):
        DeepCCA({}, dim=4).init(jax.random.key(0), {"image": streams["image"]})


def test_it_finds_what_linear_cca_cannot_see():
    """Numbers on one side, on the other with signs drawn anew: no linear correlation, and pairs are found."""

    def drawn(rows, seed):
        rng = np.random.default_rng(seed)
        size, sign = rng.uniform(0.2, 2, (2, rows)), rng.choice([-1, 1], rows)
        image, text = np.stack(size, -1), np.stack([size[0] * sign, size[1] * sign], -1)
        return {
            "image": Stream.of(image[:, None].astype(np.float32)),
            "text": Stream.of(text[:, None].astype(np.float32)),
        }

    splits = {name: batch_of(drawn(rows, seed)) for seed, (name, rows) in enumerate([("train", 600), ("test", 60)])}
    assert fit_cca({k: s.values[:, 0] for k, s in splits["train"].streams.items()}, 2).values.max() < 0.15
    encoders = {name: FeatureMLP(16, hidden_dims=(32,)) for name in ("image", "text")}
    task = Retrieval("image", "text", method="dcca")
    settings = Train(epochs=15, batch_size=100, learning_rate=1e-2, select="rsum")
    splits["validation"] = splits["test"]
    trained = fit(DeepCCA(encoders, dim=2, momentum=0.9), task, settings, splits, [0, 1])
    found = trained.history["test/rsum"]  # by chance (1 + 5 + 10) / 60 both ways: .53
    assert found[-1].min() > 2.0 and np.isfinite(trained.history["validation/loss"]).all()
    assert trained.history["validation/loss"][-1].max() < 0.3
