"""A contrastive pair in one file: two encoders, a learned scale beside their embeddings, recall of the other half.

(CLIP: Radford et al. 2021, figure 3.) What is new here is a model of fifteen lines and a task of thirty.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import FrozenDict

from mmjax.encoders import FeatureMLP
from mmjax.evaluation.scores import score
from mmjax.losses import info_nce
from mmjax.metrics import Mean
from mmjax.resident import fit
from mmjax.stream import Batch, Stream, item_weight, masked_mean
from mmjax.training import Train

WIDTHS = {"image": 12, "text": 9}


class Pair(nn.Module):
    """Embeddings of length 1 of both streams, and the scale of their products."""

    encoders: dict[str, nn.Module]

    def __post_init__(self):
        object.__setattr__(self, "encoders", FrozenDict(self.encoders))
        super().__post_init__()

    @nn.compact
    def __call__(self, streams, *, targets=None, train=False):
        outputs = {"scale": jnp.exp(self.param("log_scale", nn.initializers.constant(np.log(10.0)), ()))}
        for name, encoder in self.encoders.items():
            tokens = encoder(streams[name], train=train)
            pooled = masked_mean(tokens.values, tokens.mask)
            outputs[name] = pooled / jnp.maximum(jnp.linalg.norm(pooled + 1e-12, axis=-1, keepdims=True), 1e-6)
        return outputs


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """Cross-entropy of the partner among the batch, both ways; rows that do not count are no candidates."""

    lower_is_better: frozenset[str] = frozenset({"loss"})

    def products(self, outputs):
        return outputs["scale"] * outputs["image"] @ outputs["text"].T

    def loss(self, outputs, batch):
        return info_nce(outputs["image"], outputs["text"], scale=outputs["scale"], present=batch.weight > 0)

    def ranks(self, outputs, weight):
        """How many texts that count are nearer to each image than its own."""
        products = self.products(outputs)
        return ((products > jnp.diagonal(products)[:, None]) & (weight > 0)[None]).sum(1)

    def metrics(self, outputs, batch):
        weight = item_weight(batch)
        first = self.ranks(outputs, weight) < 1
        return {"loss": Mean.of(self.loss(outputs, batch), weight), "recall@1": Mean.of(first * 1.0, weight)}


def draw_pairs(rows, seed):
    """Two noisy views of the same hidden vector."""
    views = np.random.default_rng(0)
    rng = np.random.default_rng(seed)
    hidden, streams = rng.normal(size=(rows, 4)), {}
    for name, width in WIDTHS.items():
        values = np.tanh(hidden @ views.normal(size=(4, width))) + rng.normal(0, 0.1, (rows, width))
        streams[name] = Stream(values[:, None].astype(np.float32), np.ones((rows, 1), bool))
    number = np.arange(rows, dtype=np.int32)
    return Batch(streams, number, np.ones(rows, np.float32), number, number)


MODEL = Pair({name: FeatureMLP(8, hidden_dims=(32,)) for name in WIDTHS})
SPLITS = {"train": draw_pairs(150, 1), "validation": draw_pairs(40, 2), "test": draw_pairs(40, 3)}


@pytest.fixture(scope="module")
def trained():
    train = Train(epochs=30, batch_size=50, learning_rate=1e-2, optimizer=optax.adam, select="recall@1")
    return fit(MODEL, Contrastive(), train, SPLITS, [0, 1])


def test_it_trains_with_its_scale(trained):
    assert (trained.history["validation/loss"][-1] < 0.5 * trained.history["validation/loss"][0]).all()
    scale = trained.outputs["test"]["scale"]
    assert scale.shape == (2,) and (np.abs(scale - 10) > 0.5).all()  # one number a seed, and it has learned
    np.testing.assert_allclose(scale, np.exp(trained.variables["params"]["log_scale"]), rtol=1e-6)


def test_it_reports_recall_over_the_whole_split(trained):
    outputs, batch = trained.outputs["test"], SPLITS["test"]
    ranks = np.stack(
        [Contrastive().ranks(jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), outputs), batch.weight) for i in range(2)]
    )
    recall = score("recall@1").of(ranks, batch.target)
    assert (recall > 0.5).all()  # by chance 1 of 40
    best = [trained.history["test/recall@1"][epoch, seed] for seed, epoch in enumerate(trained.epoch)]
    np.testing.assert_allclose(recall, best, rtol=1e-6)
    draws = score("recall@1").resampled(
        ranks, batch.target, np.random.default_rng(0).multinomial(40, [1 / 40] * 40, 200)
    )
    assert (np.quantile(draws, 0.025, axis=1) < recall).all() and (recall <= np.quantile(draws, 0.975, axis=1)).all()
    assert (score("recall@5").of(ranks, batch.target) >= recall).all()


def test_rows_that_do_not_count_are_no_candidates():
    outputs = {name: jnp.asarray(np.random.default_rng(5).normal(size=(6, 3)), jnp.float32) for name in WIDTHS}
    outputs["scale"] = jnp.float32(2.0)
    batch = draw_pairs(6, 4).replace(weight=np.array([1, 1, 0, 1, 1, 0], np.float32))
    keep = np.flatnonzero(batch.weight)
    rest = {name: x if name == "scale" else x[keep] for name, x in outputs.items()}
    whole = Contrastive().loss(outputs, batch)
    np.testing.assert_allclose(whole[keep], Contrastive().loss(rest, draw_pairs(4, 4)), rtol=1e-5)
    assert not whole[np.array([2, 5])].any()
