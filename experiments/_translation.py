"""What the translation tables share: Transformer-tiny with tied vectors, ways of reading an image, image controls."""

import functools

import flax.linen as nn
import numpy as np
import optax

from experiments._towers import as_features, image_maps
from mmjax.answers.trained import of_each_example
from mmjax.datasets.base import SPLITS
from mmjax.decoder import DecoderBlock, TextDecoder
from mmjax.encoders import TransformerText
from mmjax.fusion import GatedTokens, JoinedTokens
from mmjax.layers import TokenEmbedding, TransformerBlock
from mmjax.models import Multimodal
from mmjax.stream import Stream
from mmjax.training import Train
from mmjax.translation import inverse_square_root

__all__ = ["DIM", "gated", "joined", "noise_images", "optimizer", "train", "translator", "with_feature_maps"]

DIM, LAYERS, HEADS, FFN, DROPOUT = 128, 4, 4, 256, 0.3
COMPONENTS, PROJECTION_SEED, NOISE_SEED = 128, 0, 0


def translator(vocabulary, how):
    """Transformer-tiny (Wu et al. 2021): 4 + 4 layers of width 128, 4 heads, FFN 256, source, target and output tied.

    Departs from theirs in its norms, which stand before each part instead of behind it, and in the bias of the output.
    """
    vectors = TokenEmbedding(DIM, vocabulary, embedding_init=nn.initializers.normal(DIM**-0.5))
    block = TransformerBlock(num_heads=HEADS, mlp_dim=FFN, dropout_rate=DROPOUT)
    encoder = TransformerText(DIM, vocabulary, LAYERS, block, dropout_rate=DROPOUT, vectors=vectors)
    block = DecoderBlock(num_heads=HEADS, mlp_dim=FFN, dropout_rate=DROPOUT)
    head = TextDecoder(DIM, vocabulary, LAYERS, block, dropout_rate=DROPOUT, vectors=vectors, tied=True)
    return Multimodal({"text": encoder}, how, head)


def gated():
    """The image's vector is added to each token through a gate (gated fusion, Wu et al. 2021)."""
    return GatedTokens(DIM, target="text")


def joined():
    """The memory of the decoder is all tokens: the words, and the places of the image where there is one."""
    return JoinedTokens(DIM)


def optimizer(rate):
    """Adam of the recipe."""
    return optax.adam(rate, b1=0.9, b2=0.98)


def train(epochs, batch_size, *, rate=5e-3, warmup=2_000):
    """The recipe's schedule and optimiser."""
    schedule = functools.partial(inverse_square_root, warmup=warmup)
    return Train(epochs=epochs, batch_size=batch_size, learning_rate=rate, optimizer=optimizer, schedule=schedule)


@of_each_example
def with_feature_maps(dataset):
    """The stream ``image`` as 49 places of the frozen EfficientNet-Lite0, each 128 random projections of its 1,280
    numbers: they keep distances (Johnson & Lindenstrauss 1984) and are fitted on nothing.

    Features are computed once and kept beside the prepared data.
    """
    splits, basis = {}, None
    for split, maps in image_maps(dataset).items():
        if basis is None:
            width = maps.values.shape[-1]
            basis = np.random.default_rng(PROJECTION_SEED).normal(0, width**-0.5, (width, COMPONENTS))
            basis = basis.astype(np.float32)
        values = np.stack([one.astype(np.float32) @ basis for one in maps.values])
        batch = dataset.splits[split]
        splits[split] = batch.replace(streams={**batch.streams, "image": Stream(values, maps.mask)})
    return as_features(dataset, splits, ["image"])


def noise_images(dataset, *, width=None):
    """Every image replaced by noise that is fixed for its example (Wu et al. 2021, section 4.2).

    The noise has the mean and the deviation of each component of train's places; where there are no images, it is one
    standard normal vector of ``width``.
    """
    generator, splits, moments = np.random.default_rng(NOISE_SEED), {}, None
    for split in SPLITS:
        batch = dataset.splits[split]
        if "image" in batch.streams:
            like = batch.streams["image"].values
            seen = like.astype(np.float32)
            moments = (seen.mean((0, 1)), seen.std((0, 1))) if moments is None else moments
            shape = like.shape
        else:
            shape, moments = (batch.size, 1, width), (0.0, 1.0)
        values = moments[0] + moments[1] * generator.standard_normal(shape, np.float32)
        image = Stream(values.astype(np.float32), np.ones(shape[:2], bool))
        splits[split] = batch.replace(streams={**batch.streams, "image": image})
    return as_features(dataset, splits, ["image"])
