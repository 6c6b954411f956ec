"""Attention by word of captioners of both kinds, and the sheet of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.attention_decoder import AttentionLSTMDecoder
from mmjax.captioning import Items, PerCaption
from mmjax.decoder import DecoderBlock, TextDecoder
from mmjax.evaluation.interpretation.captions import Sample, caption_sheet, word_attention
from mmjax.evaluation.interpretation.charts import png
from mmjax.heads import ClassificationHead
from mmjax.models import Multimodal
from mmjax.stream import Stream

STREAMS = {"image": Stream(np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32), np.ones((2, 4), bool))}
TOKENS = Stream(np.array([[1, 2, 5], [3, 5, 0]]), np.array([[True, True, True], [True, True, False]]))
HEADS = {
    "transformer": TextDecoder(8, vocab_size=6, num_layers=2, block=DecoderBlock(num_heads=2)),
    "LSTM": AttentionLSTMDecoder(8, vocab_size=6),
}


@pytest.mark.parametrize("kind", HEADS)
def test_weights_of_a_word_are_shares_of_the_items_and_follow_the_words_before_it(kind):
    model = Multimodal({}, Items(), PerCaption(HEADS[kind]))
    words = Stream(jnp.asarray(TOKENS.values)[:, None], jnp.asarray(TOKENS.mask)[:, None])
    variables = jax.jit(model.init)(jax.random.key(0), STREAMS, targets=words)
    weights = word_attention(model, variables, STREAMS, TOKENS)
    assert weights.shape == (2, 3, 4)
    np.testing.assert_allclose(weights.sum(-1), TOKENS.mask, atol=1e-5)
    other = TOKENS.replace(values=np.where([[True, False, False]] * 2, 4, TOKENS.values))
    changed = word_attention(model, variables, STREAMS, other)
    np.testing.assert_allclose(changed[:, 0], weights[:, 0], atol=1e-6)  # the word itself is not seen
    assert np.abs(changed[0, 2] - weights[0, 2]).max() > 1e-6  # the LSTM looks before it reads the last word
    if kind == "LSTM":
        alone = HEADS[kind].apply(
            {"params": variables["params"]["head"]["head"]}, STREAMS["image"], TOKENS, method="explain"
        )
        np.testing.assert_allclose(weights, alone, atol=1e-6)


def test_a_model_without_attention_reports_none():
    model = Multimodal({}, Items(), ClassificationHead(3))
    variables = model.init(jax.random.key(0), STREAMS)
    assert word_attention(model, variables, STREAMS, TOKENS) is None


def test_the_sheet_has_a_picture_and_a_map_of_each_word():
    picture = np.full((8, 8, 3), 200, np.uint8)
    samples = [
        Sample(picture, ["a", "dog"], np.ones((2, 2, 2)), ["a dog runs", "one dog"]),
        Sample(picture / 255, [f"w{i}" for i in range(15)], np.ones((15, 2, 2))),
        Sample(picture[..., :1], []),
    ]
    figure = caption_sheet(samples, title="samples")
    assert len(figure.axes) == 3 + 2 + 14
    texts = [text.get_text() for text in figure.texts]
    assert {"samples", "a dog", "(nothing)", "a dog runs\none dog"} <= set(texts)
    assert png(figure).startswith(b"\x89PNG")
