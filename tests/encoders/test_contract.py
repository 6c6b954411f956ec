"""What every encoder keeps. An encoder is tested by being exported from ``mmjax.encoders`` and having a row here.

Four rows are encoded at once: all real, with a hole, absent, with padding behind. One compiled value-and-gradient
serves them whatever stands where the mask is False; the first encoder of a file is also run eagerly. Budget: three
CPU seconds a form.
"""

import dataclasses
import inspect
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmjax.encoders
from mmjax.encoders import FeatureMLP, LogMel, Recurrent
from mmjax.layers import GRU
from mmjax.stream import Stream, masked_sum
from tests.draw import draw_params
from tests.encoders.helpers import QUICK

DIM, VOCABULARY = 8, 11


@dataclasses.dataclass(frozen=True)
class Case:
    """One form of an encoder.

    Attributes:
      fields: of the module, beside ``dim``.
      shape: of the values of one example, ``(length, *item)``.
      nested: length of the masks' second axis, for ids ``[batch, utterances, words]``; 0 = masks of rank 2.
    """

    fields: dict[str, Any]
    shape: tuple[int, ...]
    integers: bool = False
    nested: bool = False


def features(shape: tuple[int, ...] = (6, 5), **fields: Any) -> Case:
    return Case(fields, shape)


def ids(shape: tuple[int, ...] = (6,), **fields: Any) -> Case:
    return Case({"vocab_size": VOCABULARY, **fields}, shape, integers=True, nested=len(shape) > 1)


CASES: dict[str, tuple[Case, ...]] = {
    "AudioTransformer": (features((12, 8), patch_size=(2, 4), num_layers=1),),
    "BagOfWords": (ids(hidden_dims=(6,)), ids((4, 3), pool=masked_sum, distinct=True)),
    "Categories": (Case({"count": VOCABULARY}, (6,), integers=True),),
    "FeatureMLP": (features(hidden_dims=(6,)), features((1, 5)), features((3, 2, 2, 1))),
    "FeatureTransformer": (features(num_layers=1),),
    "FrameVideo": (features((6, 2, 2, 1), frame_encoder=FeatureMLP(DIM), temporal=Recurrent(DIM)),),
    "LeNet": (features((4, 4, 4, 1), channels=(2, 3), hidden_dims=(6,), kernel_size=3),),
    "LogMel": (features((48,), sample_rate=8_000, n_mels=DIM, n_fft=64, hop_length=8, win_length=32),),
    "Recurrent": (features(bidirectional=True), features(cell=GRU, num_layers=2, hidden_dim=6)),
    "RecurrentText": (ids(bidirectional=True), ids((4, 3), cell=GRU, embed_dim=5)),
    "ResNet": (features((4, 4, 4, 1), widths=(4,), stage_sizes=(1,), num_groups=2),),
    "SpectrogramEncoder": (
        features((12, 4), channels=(2, 3), tokens=True),
        features((48,), channels=(2,), frontend=LogMel(8_000, n_mels=4, n_fft=16, hop_length=4, win_length=16)),
    ),
    "TemporalConv": (features(strides=(1, 1)), features(kernel_size=2, strides=(2, 1), causal=True)),
    "TransformerText": (ids(num_layers=1), ids((4, 3), num_layers=1, max_length=3)),
    "TubeletTransformer": (features((6, 4, 4, 1), tubelet_size=(4, 4, 2), num_layers=1, tokens=True),),
    "ViT": (
        features((4, 4, 4, 1), patch_size=2, num_layers=1, tokens=True),
        features((4, 4, 4, 1), patch_size=2, num_layers=1, class_token=True),
    ),
}


ENCODERS = {
    name: value
    for name, value in sorted(vars(mmjax.encoders).items())
    if not name.startswith("_") and not inspect.ismodule(value)
}
FAMILIES = set({cls.__module__: name for name, cls in reversed(ENCODERS.items())}.values())  # the first of each file
FORMS = [pytest.param(name, case, id=f"{name}-{i}") for name in CASES for i, case in enumerate(CASES[name])]


def test_every_encoder_has_a_row() -> None:
    assert sorted(CASES) == sorted(ENCODERS), (
        "an encoder exported from mmjax.encoders needs a row in CASES, and only it"
    )


def make_stream(case: Case) -> Stream:
    """All real, a hole from a third to a half of the length, absent, the second half padding."""
    rng = np.random.default_rng(0)
    mask_shape = (4, *case.shape[: 1 + case.nested])
    if case.integers:
        values = rng.integers(VOCABULARY, size=(4, *case.shape)).astype(np.int32)
    else:
        values = rng.normal(size=(4, *case.shape)).astype(np.float32)
    length = case.shape[0]
    mask = np.ones(mask_shape, bool)
    mask[1, length // 3 : (length + 1) // 2] = False
    mask[2] = False
    mask[3, (length + 1) // 2 :] = False
    if case.nested:
        mask[0, :, -1] = False  # words are padded as well
    return Stream(jnp.asarray(values), jnp.asarray(mask))


def poisoned(stream: Stream, poison: float) -> Stream:
    mask = stream.mask.reshape(stream.mask.shape + (1,) * (stream.values.ndim - stream.mask.ndim))
    return stream.replace(values=jnp.where(mask, stream.values, jnp.asarray(poison, stream.values.dtype)))


def build(name: str, case: Case) -> nn.Module:
    """The encoder; its first field is ``dim``, unless the case says otherwise (bands of a spectrogram)."""
    return ENCODERS[name](**{**({} if "n_mels" in case.fields else {"dim": DIM}), **case.fields})


@pytest.mark.parametrize("name, case", FORMS)
def test_contract(name: str, case: Case) -> None:
    encoder = build(name, case)
    stream = make_stream(case)
    params = draw_params(encoder, stream)

    def loss(params: Any, values: Any, mask: Any) -> Any:
        out = encoder.apply({"params": params}, Stream(values, mask))
        return (out.values * jnp.cos(jnp.arange(out.values.size)).reshape(out.values.shape)).sum(), out

    by = (0,) if case.integers else (0, 1)
    compiled = jax.jit(jax.grad(loss, by, has_aux=True), compiler_options=QUICK)
    gradient, out = compiled(params, stream.values, stream.mask)
    chex.assert_tree_all_finite((gradient, out))
    check_mask(stream, out)
    if not case.integers:
        assert not np.asarray(gradient[1])[~np.asarray(stream.mask)].any(), "gradient to masked values"
    for poison in (-1, 10**6) if case.integers else (np.nan, 1e3):
        other = compiled(params, poisoned(stream, poison).values, stream.mask)
        same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), (gradient, out), other)
        assert all(jax.tree.leaves(same)), f"{poison} in the padding changed {same}"
    nothing, empty = compiled(params, poisoned(stream, poison).values, jnp.zeros_like(stream.mask))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves((nothing, empty))), "an absent modality speaks"
    if name in FAMILIES and case is CASES[name][0]:
        chex.assert_trees_all_close(encoder.apply({"params": params}, stream), out, atol=1e-5)  # eager equals jit
    check_types(encoder, params, stream)


def check_mask(stream: Stream, out: Stream) -> None:
    """A sequence of items ``(dim,)``, zero where the mask is False, present where the input is."""
    assert out.mask.ndim == 2 and out.values.shape == (*out.mask.shape, DIM), (out.values.shape, out.mask.shape)
    assert out.mask.dtype == bool and len(out.mask) == len(stream.mask)
    np.testing.assert_array_equal(out.present, stream.present)
    assert not np.asarray(out.values)[~np.asarray(out.mask)].any(), "not zero where the mask is False"
    assert np.asarray(out.values)[np.asarray(out.mask)].any(), "nothing but zeros"


def check_types(encoder: nn.Module, params: Any, stream: Stream) -> None:
    """``dtype=None`` computes in the type of the input, float32 for ids; parameters are float32; training runs too."""

    def result(encoder: nn.Module, dtype: Any, train: bool) -> Any:
        values = jax.ShapeDtypeStruct(stream.values.shape, dtype)
        mask = jax.ShapeDtypeStruct(stream.mask.shape, bool)
        key = {"dropout": jax.random.key(0)}
        return jax.eval_shape(
            lambda values, mask: encoder.apply({"params": params}, Stream(values, mask), train=train, rngs=key).values,
            values,
            mask,
        ).dtype

    assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype("float32")}
    own = stream.values.dtype
    assert result(encoder, own, train=True) == jnp.float32
    if jnp.issubdtype(own, jnp.floating):
        assert result(encoder, jnp.bfloat16, train=False) == jnp.bfloat16
    if hasattr(encoder, "dtype"):
        assert result(encoder.clone(dtype=jnp.bfloat16), own, train=False) == jnp.bfloat16
