"""Probing a trained row: the same logits as the model's own, mixtures item by item, absence by a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import fusion
from mmjax.datasets import views
from mmjax.encoders import FeatureMLP
from mmjax.errors import UsageError
from mmjax.evaluation.measures.mixing import Probe, equal_parts
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal, PerStep
from mmjax.tasks import Classification
from tests.experiment.small import arrays

TASK = Classification(3)


def _model(method=None, head=None):
    encoders = {name: FeatureMLP(4) for name in ("left", "right")}
    return Multimodal(encoders, method or fusion.Concat(4), head or ClassificationHead(3))


def _variables(model, batch, seeds=2):
    return jax.vmap(lambda key: model.init(key, batch.streams))(jax.random.split(jax.random.key(0), seeds))


@pytest.fixture(scope="module")
def probed():
    batch = arrays().splits["test"]
    model = _model()
    variables = _variables(model, batch)
    return model, variables, batch, Probe(model, TASK, variables, chunk=8, mixtures=16)


def test_outputs_are_the_models_own_by_index(probed):
    model, variables, batch, probe = probed
    shuffled = jax.tree.map(lambda x: x[np.random.default_rng(0).permutation(batch.size)], batch)
    expected = jax.vmap(lambda v: model.apply(v, batch.streams))(variables)
    np.testing.assert_allclose(probe.outputs(shuffled)[:, np.argsort(np.argsort(batch.index))], expected, atol=1e-6)


def test_some_seeds_have_the_outputs_that_they_have_among_all(probed):
    _, _, batch, probe = probed
    whole = probe.outputs(batch)
    for places in ([1], [0], [1, 0]):
        np.testing.assert_array_equal(probe.outputs(batch, places), whole[places])


def test_seeds_may_take_items_of_their_own(probed):
    _, _, batch, probe = probed
    rows = {"left": np.random.default_rng(2).integers(-1, batch.size, (2, 21)), "right": np.arange(21) % batch.size}
    mixed = probe.mixed(batch)
    for seed, outputs in enumerate(mixed(rows)):
        np.testing.assert_allclose(outputs, mixed({**rows, "left": rows["left"][seed]})[seed], atol=1e-6)


@pytest.mark.parametrize(("size", "rows"), [(1, 1), (512, 512), (513, 257), (752, 376), (2000, 500)])
def test_calls_of_one_size_serve_a_split(size, rows):
    assert equal_parts(size) == rows


def test_mixtures_take_each_modality_from_its_item(probed):
    model, variables, batch, probe = probed
    rng = np.random.default_rng(1)
    rows = {"left": rng.integers(0, batch.size, 37), "right": rng.integers(0, batch.size, 37)}
    rows["right"][::5] = -1
    streams = {k: jax.tree.map(lambda x, k=k: jnp.asarray(x[np.maximum(rows[k], 0)]), batch.streams[k]) for k in rows}
    streams["right"] = streams["right"].absent(jnp.asarray(rows["right"] < 0))
    expected = jax.vmap(lambda v: model.apply(v, streams))(variables)
    np.testing.assert_allclose(probe.mixed(batch)(rows), expected, atol=1e-6)


def test_a_label_per_step_has_outputs_and_no_mixtures():
    data = views.by_group(arrays(items=45))
    batch = jax.tree.map(lambda x: np.repeat(x, 2, axis=1) if np.ndim(x) > 1 else x, data.splits["test"])
    batch = batch.replace(index=np.arange(2 * len(batch.index), dtype=np.int32).reshape(-1, 2))
    model = _model(PerStep(fusion.Concat(4)), ClassificationHead(3, pool=None))
    probe = Probe(model, TASK, _variables(model, batch))
    whole = probe.outputs(batch)
    assert whole.shape == (2, 30, 3)
    with pytest.raises(UsageError, match="label per step"):
        probe.mixed(batch)
    mixed = probe.mixed(views.take_apart(batch, batch.streams))  # every step an example of its own
    np.testing.assert_allclose(mixed(dict.fromkeys(batch.streams, np.arange(30))), whole, atol=1e-6)


def test_patterns_are_mixtures_with_modalities_left_out(probed):
    _, _, batch, probe = probed
    kept = [("left", "right"), ("right",), ()]
    found = probe.patterns(batch, kept)
    for names, outputs in zip(kept, found):
        rows = {name: np.arange(batch.size) if name in names else np.full(batch.size, -1) for name in ("left", "right")}
        np.testing.assert_allclose(outputs, probe.mixed(batch)(rows), atol=1e-6)
