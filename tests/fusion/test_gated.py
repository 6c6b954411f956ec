"""Identities of the gates: GMU (A1.5), FiLM (A1.6) and MMTM (A1.7)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from mmjax.fusion import GMU, MMTM, FiLM
from mmjax.stream import Stream
from tests.draw import draw_params, draw_streams, run

DIM = 4
PAIR = draw_streams({"text": 3, "video": 5})
TRIPLE = draw_streams({"audio": 2, "text": 3, "video": 5})


def vectors(streams):
    return {name: np.asarray(stream.values[:, 0]) for name, stream in sorted(streams.items())}


def affine(params, x):
    return x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def hidden(params, streams):
    return np.stack([np.tanh(affine(params[f"hidden_{name}"], x)) for name, x in vectors(streams).items()], axis=1)


def gated(module, params, streams):
    result, reported = run(module, params, streams)
    return np.asarray(result.values[:, 0]), np.asarray(reported["modality_gates"][0])


class TestGMU:
    def test_two_modalities_share_a_gate(self):
        module = GMU(DIM)
        params = draw_params(module, PAIR)
        assert sorted(params) == ["gate", "hidden_text", "hidden_video"]
        fused, gates = gated(module, params, PAIR)
        g = expit(affine(params["gate"], np.concatenate(list(vectors(PAIR).values()), -1)))
        h = hidden(params, PAIR)
        np.testing.assert_allclose(gates, np.stack([g, 1 - g], 1), rtol=1e-5)
        np.testing.assert_allclose(fused, g * h[:, 0] + (1 - g) * h[:, 1], rtol=1e-5, atol=1e-6)
        assert ((gates > 0) & (gates < 1)).all() and (np.abs(fused) <= 1).all()

    def test_a_gate_of_zeros_halves_and_a_large_bias_chooses(self):
        module = GMU(DIM)
        params = draw_params(module, PAIR)
        h = hidden(params, PAIR)
        shut = jax.tree.map(jnp.zeros_like, params["gate"])
        np.testing.assert_allclose(gated(module, {**params, "gate": shut}, PAIR)[0], h.mean(1), atol=1e-6)
        wide = {**shut, "bias": jnp.full(DIM, 50.0)}
        np.testing.assert_allclose(gated(module, {**params, "gate": wide}, PAIR)[0], h[:, 0], atol=1e-6)

    def test_of_two_the_one_that_is_there_passes_whole(self):
        module = GMU(DIM)
        params = draw_params(module, PAIR)
        fused, gates = gated(module, params, {**PAIR, "text": PAIR["text"].absent()})
        np.testing.assert_allclose(fused, hidden(params, PAIR)[:, 1], atol=1e-6)
        np.testing.assert_array_equal(gates[:, 0], 0)

    def test_more_have_a_gate_each_which_need_not_sum_to_one(self):
        module = GMU(DIM)
        params = draw_params(module, TRIPLE)
        fused, gates = gated(module, params, TRIPLE)
        seen = np.concatenate(list(vectors(TRIPLE).values()), -1)
        g = np.stack([expit(affine(params[f"gate_{name}"], seen)) for name in sorted(TRIPLE)], axis=1)
        np.testing.assert_allclose(gates, g, rtol=1e-5)
        np.testing.assert_allclose(fused, (g * hidden(params, TRIPLE)).sum(1), rtol=1e-5, atol=1e-6)
        assert np.abs(gates.sum(1) - 1).max() > 0.1

    def test_normalised_gates_are_a_softmax(self):
        module = GMU(DIM, normalise=True)
        params = draw_params(module, TRIPLE)
        _, gates = gated(module, params, TRIPLE)
        seen = np.concatenate(list(vectors(TRIPLE).values()), -1)
        scores = np.stack([affine(params[f"gate_{name}"], seen) for name in sorted(TRIPLE)], axis=1)
        np.testing.assert_allclose(gates, softmax(scores, axis=1), rtol=1e-5)
        _, without = gated(module, params, {**TRIPLE, "audio": TRIPLE["audio"].absent()})
        np.testing.assert_allclose(without.sum(1), 1, atol=1e-6)


class TestFiLM:
    STREAMS = {**draw_streams({"image": DIM}, length=3), **draw_streams({"question": 5}, seed=1)}

    def test_starts_as_the_identity_when_asked(self):
        module = FiLM(DIM, zero_init=True)
        result, _ = module.init_with_output(jax.random.key(0), self.STREAMS)
        np.testing.assert_array_equal(result.values, self.STREAMS["image"].values)
        result, _ = FiLM(DIM).init_with_output(jax.random.key(0), self.STREAMS)
        assert np.abs(result.values - self.STREAMS["image"].values).max() > 0.1

    def test_without_context_the_target_passes_and_without_a_target_nothing_does(self):
        module = FiLM(DIM)
        params = draw_params(module, self.STREAMS)
        mute = {**self.STREAMS, "question": self.STREAMS["question"].absent()}
        np.testing.assert_array_equal(run(module, params, mute)[0].values, self.STREAMS["image"].values)
        blind = {**self.STREAMS, "image": self.STREAMS["image"].absent()}
        result, _ = run(module, params, blind)
        assert not result.mask.any() and not result.values.any()

    def test_is_the_multiplicative_interaction_with_a_diagonal_tensor(self):
        """``z_k = sum_ij x_i y_j W_ijk + (U x)_k + (V y)_k + b_k`` (A2.9), ``W_ijk`` zero unless ``i = k``."""
        module = FiLM(DIM)
        params = draw_params(module, self.STREAMS)
        kernel, bias = (np.asarray(params["film_question"][key]) for key in ("kernel", "bias"))
        tensor = np.einsum("jk,ik->ijk", kernel[:, :DIM], np.eye(DIM))
        x, y = np.asarray(self.STREAMS["image"].values), np.asarray(self.STREAMS["question"].values[:, 0])
        expected = np.einsum("bti,bj,ijk->btk", x, y, tensor) + x * (1 + bias[:DIM])
        expected += (y @ kernel[:, DIM:] + bias[DIM:])[:, None]
        np.testing.assert_allclose(run(module, params, self.STREAMS)[0].values, expected, rtol=1e-4, atol=1e-5)

    def test_every_position_is_modulated_alike(self):
        module = FiLM(DIM)
        params = draw_params(module, self.STREAMS)
        backwards = {**self.STREAMS, "image": Stream.of(self.STREAMS["image"].values[:, ::-1])}
        result, mirrored = (run(module, params, streams)[0].values for streams in (self.STREAMS, backwards))
        np.testing.assert_allclose(mirrored[:, ::-1], result, atol=1e-6)

    def test_roles_are_fields(self):
        streams = {**self.STREAMS, "audio": self.STREAMS["question"]}
        assert sorted(draw_params(FiLM(DIM), streams)) == ["film_image", "film_question", "project_audio"]
        assert sorted(draw_params(FiLM(DIM, target="image"), streams)) == ["film_audio", "film_question"]
        assert sorted(draw_params(FiLM(DIM, target="image", context=("audio",)), streams)) == ["film_audio"]
        with pytest.raises(ValueError, match=r"no stream 'smell'; there are \['audio', 'image', 'question'\]"):
            draw_params(FiLM(DIM, target="smell"), streams)
        with pytest.raises(ValueError, match="'image' is the target and cannot be in its own context"):
            draw_params(FiLM(DIM, target="image", context=("image",)), streams)


class TestMMTM:
    MAPS = {
        "image": Stream.of(jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 4, 6)), jnp.float32)),
        **draw_streams({"sound": 10}, length=5, batch=2),
    }

    def test_follows_its_equations_whatever_the_sizes(self):
        module = MMTM()
        params = draw_params(module, self.MAPS)
        assert params["squeeze"]["kernel"].shape == (16, 4)  # a quarter of 6 + 10 channels
        result, reported = run(module, params, self.MAPS)
        squeezed = [self.MAPS["image"].values.mean((1, 2, 3)), self.MAPS["sound"].values.mean(1)]
        joint = np.maximum(affine(params["squeeze"], np.concatenate(squeezed, -1)), 0)
        for name, axes in (("image", (1, 2, 3)), ("sound", (1,))):
            scale = 2 * expit(affine(params[f"excite_{name}"], joint))
            np.testing.assert_allclose(reported[f"scale_{name}"][0], scale, rtol=1e-5)
            assert ((scale > 0) & (scale < 2)).all()
            expected = self.MAPS[name].values * np.expand_dims(scale, axes)
            np.testing.assert_allclose(result[name].values, expected, rtol=1e-5, atol=1e-5)

    def test_no_excitation_is_the_identity(self):
        module = MMTM(dim=3)
        params = jax.tree.map(jnp.zeros_like, draw_params(module, self.MAPS))
        result, _ = run(module, params, self.MAPS)
        for name, stream in self.MAPS.items():
            np.testing.assert_array_equal(result[name].values, stream.values)

    def test_an_absent_modality_squeezes_to_zero_and_stays_absent(self):
        module = MMTM()
        params = draw_params(module, self.MAPS)
        silent = {**self.MAPS, "sound": Stream(jnp.full((2, 5, 10), jnp.nan), jnp.zeros((2, 5), bool))}
        zero = {**self.MAPS, "sound": Stream.of(jnp.zeros((2, 5, 10)))}
        result, expected = run(module, params, silent)[0], run(module, params, zero)[0]
        np.testing.assert_array_equal(result["image"].values, expected["image"].values)
        assert not result["sound"].present.any() and not result["sound"].values.any()

    def test_refuses_integers(self):
        streams = {**self.MAPS, "image": Stream.of(jnp.zeros((2, 3, 4, 4, 6), jnp.uint8))}
        with pytest.raises(ValueError, match="'image' holds uint8"):
            draw_params(MMTM(), streams)
