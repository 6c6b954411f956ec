"""A captioner in one file: a decoder block trains on twenty pictures, is selected by its loss, generates.

What is new here is a task of twenty lines; the decoder, both feeds and the selection are the package's.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.decoder import DecoderBlock, TextDecoder
from mmjax.encoders import LeNet
from mmjax.fusion import JointTransformer
from mmjax.generation import generate_greedily
from mmjax.losses import cross_entropy
from mmjax.metrics import Mean
from mmjax.models import Multimodal
from mmjax.resident import fit
from mmjax.stream import Batch, Stream, item_weight
from mmjax.training import Train
from tests.draw import quick_jit

WORDS = ("END", "bar", "spot", "ring", "left", "right", "alone")
END, LENGTH, PICTURES = 0, 4, 20


@dataclasses.dataclass(frozen=True)
class Captioning:
    """Nats of a caption given the words before each, the mean over its words."""

    lower_is_better: frozenset[str] = frozenset({"loss"})

    def loss(self, outputs, batch):
        nats = cross_entropy(outputs, batch.target.zeroed.values)
        words = batch.target.mask
        return jnp.where(words, nats, 0).sum(1) / jnp.maximum(words.sum(1), 1)

    def metrics(self, outputs, batch):
        return {"loss": Mean.of(self.loss(outputs, batch), item_weight(batch))}


def draw_pictures(seed):
    """Shapes at a side of a noisy picture, in words: "bar left END", and of a picture of one of them, "alone END"."""
    rng = np.random.default_rng(seed)
    shapes = np.zeros((3, 4, 4))
    shapes[0, 1:3], shapes[1, 1:3, 1:3], shapes[2], shapes[2, 1:3, 1:3] = 1, 2, 1, 0
    pictures, captions = rng.normal(0, 0.1, (PICTURES, 1, 4, 8, 1)), np.zeros((PICTURES, LENGTH), np.int32)
    for i in range(PICTURES):
        shape, side = i % 3, i // 3 % 2
        pictures[i, 0, :, 4 * side : 4 * side + 4, 0] += shapes[shape]
        words = [1 + shape, 4 + side] if shape else [1 + shape, 4 + side, 6]
        captions[i, : len(words)] = words
    mask = np.arange(LENGTH) <= (captions != END).sum(1)[:, None]  # the end is one of the words to be said
    number = np.arange(PICTURES, dtype=np.int32)
    images = Stream(pictures.astype(np.float32), np.ones((PICTURES, 1), bool))
    return Batch({"image": images}, Stream(captions, mask), np.ones(PICTURES, np.float32), number, number)


MODEL = Multimodal(
    {"image": LeNet(16, channels=(8,), kernel_size=3, tokens=True)},
    JointTransformer(16, num_layers=0, positions=True, cls_token=False),
    TextDecoder(16, len(WORDS), block=DecoderBlock(num_heads=2, mlp_dim=32)),
)
SPLITS = {name: draw_pictures(seed) for seed, name in enumerate(("train", "validation", "test"))}


@pytest.fixture(scope="module")
def trained():
    train = Train(epochs=60, batch_size=10, learning_rate=1e-2, optimizer=optax.adam)
    return fit(MODEL, Captioning(), train, SPLITS, [0])


def test_it_trains_and_is_selected_by_its_teacher_forced_loss(trained):
    losses = trained.history["validation/loss"][:, 0]
    assert losses[trained.epoch[0]] == losses.min() < 0.1 * losses[0]
    logits = trained.outputs["validation"][0]
    assert logits.shape == (PICTURES, LENGTH, len(WORDS))
    held_out = jax.tree.map(jnp.asarray, SPLITS["validation"])
    again = float(np.mean(Captioning().loss(jnp.asarray(logits), held_out)))
    assert losses.min() == pytest.approx(again, rel=1e-4)


def test_it_generates(trained):
    variables = jax.tree.map(lambda x: x[0], trained.variables)
    generate = quick_jit(lambda v, s: generate_greedily(MODEL, v, s, max_length=LENGTH, end_id=END))
    said = jax.tree.map(lambda x: x[:, 0], generate(variables, SPLITS["test"].streams).tokens)
    wanted = SPLITS["test"].target.values
    right = (np.asarray(said.values) == wanted).all(1)
    assert right.mean() >= 0.9
    first = " ".join(WORDS[word] for word in np.asarray(said.values[0])[np.asarray(said.mask[0])])
    assert first == "bar left alone"
    unseen = generate(variables, {"image": SPLITS["test"].streams["image"].absent()}).tokens
    assert (np.asarray(unseen.values) == np.asarray(unseen.values[0])).all()  # of no picture there is one thing to say
