"""The joint transformer (A1.2, A3.9): an order-free set of marked tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import JointTransformer
from mmjax.layers import TransformerBlock
from mmjax.stream import Stream, masked_mean
from tests.draw import draw_params, draw_streams
from tests.draw import run_compiled as run

WIDTHS = {"audio": 3, "text": 8, "video": 5}
STREAMS = draw_streams(WIDTHS, length=3, batch=3)
MODULE = JointTransformer(8, num_layers=1, block=TransformerBlock(num_heads=2))
PARAMS = draw_params(MODULE, STREAMS)
RESULT = run(MODULE, PARAMS, STREAMS)[0]


def test_the_order_of_the_modalities_is_nothing_their_embedding_everything():
    other = {"audio": "zebra", "text": "text", "video": "ant"}  # another sorted order

    def rename(tree):
        for old, new in other.items():
            tree = {key.replace(f"_{old}", f"_{new}"): leaf for key, leaf in tree.items()}
        return tree

    renamed = {other[name]: stream for name, stream in STREAMS.items()}
    assert sorted(renamed) != [other[name] for name in sorted(STREAMS)]
    again, _ = run(MODULE, rename(PARAMS), renamed)
    np.testing.assert_allclose(again.values, RESULT.values, atol=1e-5)
    swapped = {**PARAMS, "embedding_audio": PARAMS["embedding_text"], "embedding_text": PARAMS["embedding_audio"]}
    assert np.abs(run(MODULE, swapped, STREAMS)[0].values - RESULT.values).max() > 1e-2


def test_padded_tokens_and_absent_modalities_are_as_if_cut_off():
    mask = jnp.asarray([[True, False, True]] * 3)
    holes = {**STREAMS, "audio": STREAMS["audio"].replace(mask=mask), "video": STREAMS["video"].absent()}
    short = {"audio": Stream.of(STREAMS["audio"].values[:, ::2]), "text": STREAMS["text"]}
    np.testing.assert_allclose(
        run(MODULE, PARAMS, holes)[0].values, run(MODULE, PARAMS, short)[0].values, rtol=1e-5, atol=1e-5
    )


def test_one_token_per_modality_is_the_transformer_over_pooled_streams():
    means = {name: Stream.of(masked_mean(s.values, s.mask)[:, None]) for name, s in STREAMS.items()}
    simbamm = MODULE.clone(per_modality=True)
    result, reported = run(simbamm, PARAMS, STREAMS)
    np.testing.assert_allclose(result.values, run(MODULE, PARAMS, means)[0].values, atol=1e-5)
    assert reported["block_0"]["attention"]["joint_attention_weights"][0].shape == (3, 2, 4, 4)
    assert reported["joint_modalities"][0].tolist() == [-1, 0, 1, 2]  # the learned token and three


def test_tokens_come_out_for_a_head_that_pools_them():
    module = MODULE.clone(cls_token=False)
    params = {name: leaf for name, leaf in PARAMS.items() if name != "cls"}
    streams = {**STREAMS, "video": STREAMS["video"].absent()}
    tokens, _ = run(module, params, streams)
    assert tokens.values.shape == (3, 9, 8)
    np.testing.assert_array_equal(tokens.mask[0], [True] * 6 + [False] * 3)
    shorter, _ = run(module, params, {name: streams[name] for name in ("audio", "text")})
    np.testing.assert_allclose(tokens.values[:, :6], shorter.values, rtol=1e-5, atol=1e-5)


def test_only_with_positions_does_the_order_of_tokens_matter():
    backwards = {**STREAMS, "text": Stream.of(STREAMS["text"].values[:, ::-1])}
    np.testing.assert_allclose(run(MODULE, PARAMS, backwards)[0].values, RESULT.values, atol=1e-5)
    ordered = MODULE.clone(positions=True)
    first, second = (run(ordered, PARAMS, streams)[0].values for streams in (STREAMS, backwards))
    assert np.abs(first - second).max() > 1e-3


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"num_heads=3 must divide self.dim=8"):
        draw_params(JointTransformer(8, block=TransformerBlock(num_heads=3)), STREAMS)
