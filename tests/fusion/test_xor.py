"""Where interaction shows: the exclusive or of two bits, one per modality. No sum over modalities can say it."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import EarlyConcat, FiLM, JointTransformer
from mmjax.fusion.decision import mean_of_logits
from mmjax.stream import Stream
from tests.draw import draw_params
from tests.draw import run_compiled as run

BITS = np.asarray(list(itertools.product([0, 1], repeat=2)))  # the four cells
TARGET = BITS[:, 0] ^ BITS[:, 1]
CODE = np.random.default_rng(0).normal(size=(2, 8))
STREAMS = {n: Stream.of(jnp.asarray(CODE[BITS[:, i], None], jnp.float32)) for i, n in enumerate(("left", "right"))}


def linear_readout(features):
    """The least-squares answer, in +1 and -1, of a linear head on the four cells."""
    design = np.concatenate([np.asarray(features, np.float64), np.ones((4, 1))], axis=1)
    solution, *_ = np.linalg.lstsq(design, 2.0 * TARGET - 1, rcond=1e-6)
    return design @ solution


def test_no_sum_of_unimodal_logits_passes_three_cells_of_four():
    rng = np.random.default_rng(1)
    best = 0
    for _ in range(500):  # the logits of any two models are a table with a row per bit
        left, right = rng.normal(size=(2, 2, 2))
        right_cells = mean_of_logits({"left": left[BITS[:, 0]], "right": right[BITS[:, 1]]}).argmax(-1) == TARGET
        best = max(best, right_cells.mean())
    assert best == 0.75


def test_a_linear_head_on_concatenated_features_has_nothing_to_say():
    features = np.concatenate([stream.values[:, 0] for stream in STREAMS.values()], axis=-1)
    np.testing.assert_allclose(linear_readout(features), 0, atol=1e-9)


@pytest.mark.parametrize(
    "module", [JointTransformer(8, num_layers=1), EarlyConcat(8), FiLM(8)], ids=lambda module: type(module).__name__
)
def test_a_joint_model_says_it_exactly(module):
    features = run(module, draw_params(module, STREAMS), STREAMS)[0].values[:, 0]
    np.testing.assert_allclose(linear_readout(features), 2.0 * TARGET - 1, atol=1e-4)
