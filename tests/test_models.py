"""Assemblies and wrappers: each against the same parts called by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import FeatureMLP, ResNet, ViT
from mmjax.fusion import MMTM, AdditiveAttention, Concat, EarlyConcat, JointTransformer
from mmjax.heads import ClassificationHead, RegressionHead
from mmjax.layers import Dense, TransformerBlock
from mmjax.models import Interleaved, Layerwise, ModalityDropout, Multimodal, NullToken, PerStep
from mmjax.stream import Stream
from tests.draw import draw_params, draw_streams, quick_jit, run, run_compiled


class Linear(nn.Module):
    """The smallest encoder."""

    dim: int

    @nn.compact
    def __call__(self, stream, *, train=False):
        return stream.replace(values=Dense(self.dim, name="dense")(stream.zeroed.values)).zeroed


class IgnoresSpeaker(nn.Module):
    """A fusion that names its side information."""

    fusion: nn.Module

    def __call__(self, streams, *, train=False):
        return self.fusion({name: stream for name, stream in streams.items() if name != "speaker"}, train=train)


STREAMS = draw_streams({"audio": 3, "text": 4}, length=2, batch=3)
MODEL = Multimodal({"audio": Linear(4)}, Concat(4), ClassificationHead(5))
PARAMS = draw_params(MODEL, STREAMS)


class TestMultimodal:
    def test_is_encoders_then_fusion_then_head(self):
        assert sorted(PARAMS) == ["encoders_audio", "fusion", "head"]
        audio, _ = run(Linear(4), PARAMS["encoders_audio"], STREAMS["audio"])
        fused, _ = run(Concat(4), PARAMS["fusion"], {"audio": audio, "text": STREAMS["text"]})
        expected, _ = run(ClassificationHead(5), PARAMS["head"], fused)
        np.testing.assert_allclose(run(MODEL, PARAMS, STREAMS)[0], expected, atol=1e-6)

    def test_analysis_may_encode_once(self):
        encoded = MODEL.apply({"params": PARAMS}, STREAMS, method="encode")
        assert encoded["audio"].values.shape == (3, 2, 4) and encoded["text"] is STREAMS["text"]
        outputs = MODEL.apply({"params": PARAMS}, encoded, method="fuse_and_predict")
        np.testing.assert_array_equal(outputs, MODEL.apply({"params": PARAMS}, STREAMS))

    def test_an_encoder_without_its_stream_is_named(self):
        with pytest.raises(ValueError, match=r"no stream 'audio'; there are \['text'\]"):
            draw_params(MODEL, {"text": STREAMS["text"]})

    def test_unimodal_heads_have_parameters_of_their_own(self):
        model = MODEL.clone(unimodal_head=RegressionHead())
        params = draw_params(model, STREAMS)
        assert sorted(params) == ["encoders_audio", "fusion", "head", "unimodal_audio", "unimodal_text"]
        outputs, _ = run(model, params, STREAMS)
        np.testing.assert_array_equal(
            outputs["fused"], run(MODEL, {k: v for k, v in params.items() if "unimodal" not in k}, STREAMS)[0]
        )
        alone, _ = run(RegressionHead(), params["unimodal_text"], STREAMS["text"])
        np.testing.assert_array_equal(outputs["unimodal"]["text"], alone)
        assert outputs["unimodal"]["audio"].shape == (3,)

    def test_side_information_has_no_head(self):
        model = Multimodal({}, IgnoresSpeaker(Concat(4)), ClassificationHead(5), unimodal_head=RegressionHead())
        streams = {**STREAMS, "speaker": Stream.of(jnp.zeros((3, 2), jnp.int32))}
        outline = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), streams)[0])
        assert list(outline["unimodal"]) == ["audio", "text"]

    def test_is_hashable_and_keeps_its_argument(self):
        encoders = {"audio": Linear(4)}
        model = Multimodal(encoders, Concat(4), ClassificationHead(5))
        encoders["text"] = Linear(4)
        assert list(model.encoders) == ["audio"] and hash(model) == hash(model.clone())

    def test_early_late_and_attention_differ_in_the_fusion_alone(self):
        for fusion in (EarlyConcat(4), Concat(4), AdditiveAttention(4), JointTransformer(4, num_layers=1)):
            model = MODEL.clone(fusion=fusion)
            outline = jax.eval_shape(lambda model=model: model.init_with_output(jax.random.key(0), STREAMS)[0])
            assert outline.shape == (3, 5)


class TestPerStep:
    def test_is_the_fusion_at_every_step(self):
        mask = jnp.asarray([[True, False], [True, True], [False, False]])
        streams = {**STREAMS, "text": STREAMS["text"].replace(mask=mask)}
        module = PerStep(AdditiveAttention(4))
        params = draw_params(module, streams)
        result, _ = run(module, params, streams)
        for step in range(2):
            here = {n: Stream(s.values[:, step : step + 1], s.mask[:, step : step + 1]) for n, s in streams.items()}
            alone, _ = run(AdditiveAttention(4), params["fusion"], here)
            np.testing.assert_allclose(result.values[:, step], alone.values[:, 0], atol=1e-6)
            np.testing.assert_array_equal(result.mask[:, step], alone.mask[:, 0])

    def test_a_step_is_padding_where_nothing_is(self):
        mask = jnp.asarray([[True, False]] * 3)
        streams = {name: stream.replace(mask=mask) for name, stream in STREAMS.items()}
        result, _ = run(PerStep(Concat(4)), draw_params(PerStep(Concat(4)), streams), streams)
        np.testing.assert_array_equal(result.mask, mask)
        assert not result.values[:, 1].any()

    def test_says_what_it_needs(self):
        uneven = {**STREAMS, "audio": Stream.of(jnp.zeros((3, 5, 3)))}
        with pytest.raises(ValueError, match=r"aligned steps, the streams have lengths {'audio': 5, 'text': 2}"):
            draw_params(PerStep(Concat(4)), uneven)
        tokens = JointTransformer(4, num_layers=1, cls_token=False)
        with pytest.raises(ValueError, match="needs a pooled fusion, JointTransformer gave 2 tokens"):
            draw_params(PerStep(tokens), STREAMS)


class Adds(nn.Module):
    """An exchange that adds a stream, the sum of the others."""

    def __call__(self, streams, *, train=False):
        first, second = (streams[name] for name in ("audio", "image"))
        total = first.zeroed.values.mean(1, keepdims=True) + second.zeroed.values.mean((1, 2, 3))[:, None]
        return {**streams, "sum": Stream.of(total)}


class TestLayerwise:
    MAPS = {
        "image": Stream(
            jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2, 2, 4)), jnp.float32),
            jnp.asarray([[True, False, True], [True, True, True]]),
        ),
        **draw_streams({"audio": 4}, length=2, batch=2),
    }

    def test_alternates_stages_and_exchanges_and_flattens_last(self):
        stages = [{"audio": Linear(6)}, {"audio": Linear(4), "image": Linear(4)}]
        module = Layerwise(stages, [MMTM(), None], Concat(4))
        params = draw_params(module, self.MAPS)
        audio, _ = run(Linear(6), params["stages_0_audio"], self.MAPS["audio"])
        mixed, _ = run(MMTM(), params["exchanges_0"], {"audio": audio, "image": self.MAPS["image"]})
        last = {name: run(Linear(4), params[f"stages_1_{name}"], mixed[name])[0] for name in mixed}
        flat = Stream(last["image"].values.reshape(2, 12, 4), jnp.repeat(last["image"].mask, 4, axis=1))
        expected, _ = run(Concat(4), params["fusion"], {"audio": last["audio"], "image": flat})
        np.testing.assert_allclose(run(module, params, self.MAPS)[0].values, expected.values, rtol=1e-5, atol=1e-5)

    def test_keeps_every_level_when_asked(self):
        class Names(nn.Module):
            def __call__(self, streams, *, train=False):
                return sorted((name, stream.values.shape[1]) for name, stream in streams.items())

        module = Layerwise([{}, {}], [None, Adds()], Names(), keep=True)
        names = module.apply({}, self.MAPS)
        assert names == [("audio/00", 2), ("audio/01", 2), ("image/00", 12), ("image/01", 12), ("sum/01", 1)]

    def test_every_stage_has_its_exchange_or_none(self):
        with pytest.raises(ValueError, match="2 stages need as many exchanges, got 1; use None"):
            Layerwise([{}, {}], [None], Concat(4))
        with pytest.raises(ValueError, match="no stream 'smell'"):
            draw_params(Layerwise([{"smell": Linear(4)}], [None], Concat(4)), self.MAPS)


class TestInterleaved:
    """Two streams of pictures, one of them absent or padded somewhere."""

    RNG = np.random.default_rng(0)
    PICTURES = {
        "image": Stream(
            jnp.asarray(RNG.normal(size=(3, 2, 8, 8, 1)), jnp.float32),
            jnp.asarray([[True, True], [True, False], [True, True]]),
        ),
        "sound": Stream(
            jnp.asarray(RNG.normal(size=(3, 1, 8, 8, 2)), jnp.float32), jnp.asarray([[True], [True], [False]])
        ),
    }
    RESNET = ResNet(4, widths=(4, 8), stage_sizes=(1, 1), num_groups=2)
    VIT = ViT(4, num_layers=1, block=TransformerBlock(num_heads=2))
    TWO = Interleaved({"image": RESNET, "sound": RESNET.clone()}, [MMTM(), MMTM()], Concat(4))
    MIXED = Interleaved({"image": RESNET, "sound": VIT}, [MMTM(), MMTM()], Concat(4))

    def test_without_exchanges_is_the_encoders_then_the_fusion(self):
        module = self.MIXED.clone(exchanges=[None, None])
        params = draw_params(module, self.PICTURES)
        assert sorted(params) == ["encoders_image", "encoders_sound", "fusion"]
        tokens = {
            name: run_compiled(encoder, params[f"encoders_{name}"], self.PICTURES[name])[0]
            for name, encoder in module.encoders.items()
        }
        expected, _ = run(Concat(4), params["fusion"], tokens)
        result, _ = run_compiled(module, params, self.PICTURES)
        np.testing.assert_allclose(result.values, expected.values, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("sound", [RESNET.clone(), VIT], ids=["ResNet", "ViT"])
    def test_mmtm_stands_after_the_last_stages_but_one(self, sound):
        module = self.TWO.clone(encoders={"image": self.RESNET, "sound": sound})
        params = draw_params(module, self.PICTURES)

        @quick_jit
        def by_hand(params, streams):
            def stage(name, stages, streams):
                variables = {"params": params[f"encoders_{name}"]}
                return module.encoders[name].apply(variables, streams[name], stages=stages).zeroed

            for i in range(2):
                streams = {name: stage(name, slice(i, i + 1), streams) for name in streams}
                streams = MMTM().apply({"params": params[f"exchanges_{i}"]}, streams)
            return Concat(4).apply(
                {"params": params["fusion"]}, {name: stage(name, slice(2, 3), streams) for name in streams}
            )

        expected = by_hand(params, self.PICTURES)
        result, reported = run_compiled(module, params, self.PICTURES)
        np.testing.assert_allclose(result.values, expected.values, rtol=1e-4, atol=1e-5)
        scales = [reported[f"exchanges_{i}"]["scale_image"][0].shape for i in range(2)]
        assert scales == [(3, 4), (3, 8)]  # the channels of the two widths

    @pytest.mark.parametrize("module", [TWO, MIXED], ids=["ResNet", "ViT"])
    def test_padding_and_what_is_absent_never_matter(self, module):
        params = draw_params(module, self.PICTURES)

        def loss(params, values):
            streams = {name: stream.replace(values=values[name]) for name, stream in self.PICTURES.items()}
            result = module.apply({"params": params}, streams)
            return (result.values * jnp.arange(1.0, 5.0)).sum(), result.values

        gradient = quick_jit(jax.grad(loss, (0, 1), has_aux=True))
        first, second = (
            gradient(
                params,
                {
                    name: jnp.where(stream.mask[..., None, None, None], stream.values, poison)
                    for name, stream in self.PICTURES.items()
                },
            )
            for poison in (0.0, jnp.nan)
        )
        jax.tree.map(np.testing.assert_array_equal, first, second)
        by_values = first[0][1]
        assert not by_values["image"][1, 1].any() and not by_values["sound"][2].any()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(first))

    def test_the_exchange_carries_one_modality_into_the_tokens_of_the_other(self):
        tokens = self.TWO.clone(fusion=OfImage())
        params = draw_params(tokens, self.PICTURES)

        def slope(module):
            def image(sound):
                streams = {**self.PICTURES, "sound": self.PICTURES["sound"].replace(values=sound)}
                return module.apply({"params": params}, streams).values.sum((1, 2)) @ jnp.asarray([1.0, 1.0, 1.0])

            return np.abs(quick_jit(jax.grad(image))(self.PICTURES["sound"].values)).max((1, 2, 3, 4))

        assert (slope(tokens) > 1e-6).tolist() == [True, True, False]
        assert not slope(tokens.clone(exchanges=[None, None])).any()

    def test_an_encoder_without_stages_runs_first_and_takes_part(self):
        streams = {"image": self.PICTURES["image"], "words": draw_streams({"words": 5}, batch=3)["words"]}
        module = Interleaved({"image": self.RESNET, "words": FeatureMLP(3)}, [MMTM()], Concat(4))
        shapes = jax.eval_shape(module.init, jax.random.key(0), streams)["params"]
        assert shapes["exchanges_0"]["squeeze"]["kernel"].shape == (8 + 3, 2)

    def test_says_what_it_needs(self):
        short = Interleaved({"image": self.RESNET, "sound": self.VIT}, [None] * 3, Concat(4))
        with pytest.raises(ValueError, match=r"3 exchanges .* got {'image': 3, 'sound': 3}"):
            draw_params(short, self.PICTURES)
        with pytest.raises(ValueError, match=r"no stream 'smell'"):
            draw_params(Interleaved({"smell": self.RESNET}, [], Concat(4)), self.PICTURES)


class OfImage(nn.Module):
    """A fusion that passes on one modality."""

    def __call__(self, streams, *, train=False):
        return streams["image"]


class TestNullToken:
    def test_gives_what_is_absent_a_learned_token(self):
        gone = jnp.asarray([True, False, True])
        streams = {**STREAMS, "audio": STREAMS["audio"].absent(gone)}
        module = NullToken(Concat(4))
        params = draw_params(module, streams)
        assert params["null_audio"].shape == (3,)
        filled = jnp.where(gone[:, None], params["null_audio"], STREAMS["audio"].values.mean(1))
        expected, _ = run(Concat(4), params["fusion"], {**STREAMS, "audio": Stream.of(filled[:, None])})
        np.testing.assert_allclose(run(module, params, streams)[0].values, expected.values, rtol=1e-5, atol=1e-5)

    def test_learns_from_absence_alone_and_never_from_what_stood_there(self):
        module = NullToken(Concat(4))
        params = draw_params(module, STREAMS)

        def loss(params, streams):
            return (module.apply({"params": params}, streams).values ** 2).sum()

        poisoned = {
            **STREAMS,
            "audio": Stream(jnp.full_like(STREAMS["audio"].values, jnp.nan), jnp.zeros((3, 2), bool)),
        }
        gradient = quick_jit(jax.grad(loss))
        learned, present = gradient(params, poisoned), gradient(params, STREAMS)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learned))
        assert learned["null_audio"].any() and not learned["null_text"].any()
        assert not present["null_audio"].any() and not present["null_text"].any()

    def test_all_absent_is_present_under_it(self):
        streams = {name: stream.absent() for name, stream in STREAMS.items()}
        module = NullToken(Concat(4))
        assert run(module, draw_params(module, streams), streams)[0].mask.all()


class Masks(nn.Module):
    """A fusion that tells what it was shown."""

    def __call__(self, streams, *, train=False):
        return {name: stream.present for name, stream in streams.items()}


class TestModalityDropout:
    MANY = draw_streams({"audio": 1, "text": 1}, batch=40_000)

    def shown(self, streams, rate=0.3, **how):
        module = ModalityDropout(Masks(), rate)
        return {name: np.asarray(seen) for name, seen in module.apply({}, streams, **how).items()}

    def test_leaves_out_at_its_rate_and_never_everything(self):
        shown = self.shown(self.MANY, train=True, rngs={"dropout": jax.random.key(0)})
        assert (shown["audio"] | shown["text"]).all()
        for seen in shown.values():  # a share 0.3 (1 - 0.15) goes; four standard errors of 40,000 draws
            assert abs((~seen).mean() - 0.255) < 4 * np.sqrt(0.255 * 0.745 / 40_000)

    def test_what_is_there_alone_stays_and_what_is_absent_stays_absent(self):
        streams = {**self.MANY, "text": self.MANY["text"].absent()}
        shown = self.shown(streams, rate=0.9, train=True, rngs={"dropout": jax.random.key(0)})
        assert shown["audio"].all() and not shown["text"].any()
        nothing = {name: stream.absent() for name, stream in self.MANY.items()}
        shown = self.shown(nothing, train=True, rngs={"dropout": jax.random.key(0)})
        assert not shown["audio"].any() and not shown["text"].any()

    def test_outside_training_and_at_rate_zero_is_the_fusion(self):
        module, bare = ModalityDropout(Concat(4)), Concat(4)
        params = draw_params(module, STREAMS)
        expected, _ = run(bare, params["fusion"], STREAMS)
        np.testing.assert_array_equal(run(module, params, STREAMS)[0].values, expected.values)
        never = module.clone(rate=0.0).apply({"params": params}, STREAMS, train=True)
        np.testing.assert_array_equal(never.values, expected.values)

    def test_in_training_is_the_fusion_of_what_is_left(self):
        module, key = ModalityDropout(Concat(4), 0.5), {"dropout": jax.random.key(3)}
        params = draw_params(module, STREAMS)
        shown = ModalityDropout(Masks(), 0.5).apply({}, STREAMS, train=True, rngs=key)
        left = {name: stream.absent(~shown[name]) for name, stream in STREAMS.items()}
        assert not all(seen.all() for seen in shown.values())
        expected, _ = run(Concat(4), params["fusion"], left)
        result = module.apply({"params": params}, STREAMS, train=True, rngs=key)
        np.testing.assert_array_equal(result.values, expected.values)

    def test_a_rate_is_a_share(self):
        with pytest.raises(ValueError, match=r"self.rate=1.0 must be from 0 to below 1"):
            self.shown(self.MANY, rate=1.0)
