"""Identities of fusion as a set: the order is forgotten, the number is not."""

import itertools

import numpy as np
import pytest

from mmjax.fusion import DeepSets
from tests.draw import draw_params, draw_streams, run

DIM = 6
STREAMS = draw_streams({"audio": DIM, "text": DIM, "video": DIM})
TOKENS = np.stack([STREAMS[name].values[:, 0] for name in sorted(STREAMS)], axis=1)  # [batch, modality, dim]
MODULES = [DeepSets(DIM), DeepSets(DIM, hidden_dims=()), DeepSets(DIM, hidden_dims=(5, 4))]
every_module = pytest.mark.parametrize("module", MODULES, ids=["default", "linear", "deep"])


def fuse(module, streams=STREAMS, params=None):
    """The fused vectors ``[batch, dim]``."""
    params = draw_params(module, STREAMS) if params is None else params
    return np.asarray(run(module, params, streams)[0].values[:, 0])


def mlp(params, x):
    """Dense layers with GELU between them (Hendrycks and Gimpel 2016, its tanh form), in NumPy."""
    for i in range(len(params)):
        if i:
            x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        x = x @ np.asarray(params[f"dense_{i}"]["kernel"]) + params[f"dense_{i}"]["bias"]
    return x


@every_module
def test_deep_sets_follow_their_equation(module):
    params = draw_params(module, STREAMS)
    layers = 2 if module.hidden_dims is None else len(module.hidden_dims) + 1
    assert {name: len(params[name]) for name in params} == {"phi": layers, "rho": layers}
    expected = mlp(params["rho"], mlp(params["phi"], TOKENS).sum(1))
    np.testing.assert_allclose(fuse(module, params=params), expected, rtol=1e-5, atol=1e-5)


@every_module
def test_permuting_the_modalities_changes_nothing(module):
    fused = fuse(module)
    for names in itertools.permutations(STREAMS):
        permuted = {name: STREAMS[other] for name, other in zip(STREAMS, names)}
        np.testing.assert_allclose(fuse(module, permuted), fused, rtol=1e-5, atol=1e-5)


@every_module
def test_an_absent_modality_is_one_that_was_never_there(module):
    without = {name: STREAMS[name] for name in ("audio", "video")}
    absent = fuse(module, {**STREAMS, "text": STREAMS["text"].absent()})
    np.testing.assert_allclose(absent, fuse(module, without), rtol=1e-5, atol=1e-5)
    assert np.abs(absent - fuse(module)).max() > 0.1, "a modality that says nothing proves nothing here"


@every_module
def test_the_same_token_twice_counts_twice(module):
    params = draw_params(module, STREAMS)
    twice = {"audio": STREAMS["audio"], "text": STREAMS["audio"]}
    expected = mlp(params["rho"], 2 * mlp(params["phi"], TOKENS[:, 0]))  # a mean would give rho(phi)
    np.testing.assert_allclose(fuse(module, twice, params), expected, rtol=1e-5, atol=1e-5)
