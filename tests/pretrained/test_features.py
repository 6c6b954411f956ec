"""Features are computed once for each content, in batches of one shape."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import BagOfWords
from mmjax.errors import UsageError
from mmjax.pretrained import EfficientNetLite0, Tower, efficientnet_lite0, frozen_features, sentence_features
from mmjax.pretrained.features import features_key
from mmjax.source_code import reached_definitions
from mmjax.stream import Stream


class Counted(nn.Module):
    """A linear map of vectors that notes each trace and each run."""

    dim: int = 3

    @nn.compact
    def __call__(self, stream, *, train=False):
        TRACES.append(stream.values.shape)
        jax.debug.callback(lambda: RUNS.append(1))
        return Stream(nn.Dense(self.dim, name="out")(stream.values), stream.mask).zeroed


TRACES, RUNS = [], []


@pytest.fixture
def tower():
    module = Counted()
    variables = module.init(jax.random.key(0), Stream.of(jnp.ones((1, 2, 4))))
    TRACES.clear(), RUNS.clear()
    return Tower(module, jax.tree.map(np.asarray, variables), "file")


@pytest.fixture
def stream():
    draw = np.random.default_rng(0)
    return Stream(draw.normal(size=(7, 2, 4)).astype(np.float32), draw.uniform(size=(7, 2)) < 0.6)


def runs():
    jax.effects_barrier()
    return len(RUNS)


def test_batches_have_one_shape_and_give_what_the_whole_gives(tower, stream):
    features = frozen_features(tower, stream, batch_size=3)
    assert TRACES == [(3, 2, 4)] and runs() == 3
    whole = tower.module.apply(tower.variables, stream)
    np.testing.assert_allclose(features.values, whole.values, atol=1e-6)
    np.testing.assert_array_equal(features.mask, stream.mask)
    assert isinstance(features.values, np.ndarray)


def test_items_that_are_the_same_pass_once(tower, stream):
    """Whatever stands where the mask is False; the order is kept."""
    again = np.asarray([0, 1, 0, 2, 1, 1, 6])
    values = np.where(
        stream.mask[again][..., None], stream.values[again], np.arange(7.0, dtype=np.float32)[:, None, None]
    )
    found = frozen_features(tower, Stream(values, stream.mask[again]), batch_size=2)
    assert runs() == 2 and TRACES == [(2, 2, 4)]  # four items
    whole = frozen_features(tower, stream, batch_size=2)
    np.testing.assert_allclose(found.values, whole.values[again], rtol=1e-6)
    np.testing.assert_array_equal(found.mask, whole.mask[again])


def test_what_was_computed_is_read_and_what_changed_is_computed(tower, stream, tmp_path):
    def features(tower=tower, stream=stream):
        before = runs()
        found = frozen_features(tower, stream, cache_dir=tmp_path, batch_size=4)
        return found, runs() - before

    first, count = features()
    again, read = features()
    assert (count, read) == (2, 0)
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.mask, again.mask)
    # what the mask hides is no content
    assert features(stream=stream.replace(values=np.where(stream.mask[..., None], stream.values, np.nan)))[1] == 0
    changed = stream.values.copy()
    place = tuple(np.argwhere(stream.mask)[0])
    changed[place][0] += 1
    assert features(stream=stream.replace(values=changed))[1] == 2
    hidden = stream.mask.copy()
    hidden[place] = False
    assert features(stream=stream.replace(mask=hidden))[1] == 2
    kernel = tower.variables["params"]["out"]["kernel"] + np.float32(0.1)
    other = {"params": {"out": {**tower.variables["params"]["out"], "kernel": kernel}}}
    moved, count = features(dataclasses.replace(tower, variables=other))
    assert count == 2 and not np.array_equal(moved.values, first.values)
    assert len(list(tmp_path.iterdir())) == 4 and all(path.suffix == ".npz" for path in tmp_path.iterdir())


def test_a_damaged_file_is_made_again(tower, stream, tmp_path):
    first = frozen_features(tower, stream, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    again = frozen_features(tower, stream, cache_dir=tmp_path)
    np.testing.assert_array_equal(first.values, again.values)
    assert path.read_bytes() == data and list(tmp_path.iterdir()) == [path]


def test_the_key_knows_fields_and_code(tower, stream):
    wide = dataclasses.replace(tower, module=Counted(dim=5))
    assert features_key(wide, stream) != features_key(tower, stream)
    code = reached_definitions(EfficientNetLite0())
    assert {f"mmjax.pretrained.efficientnet.{name}" for name in ("LITE0", "model_pixels", "FrozenNorm")} <= code.keys()
    assert "mmjax.encoders.image.pixels" in code


def test_nothing_to_compute_is_refused(tower, stream):
    with pytest.raises(UsageError, match="got 0"):
        frozen_features(tower, Stream.of(np.zeros((0, 2, 4))))
    with pytest.raises(UsageError, match="batch_size=0"):
        frozen_features(tower, stream, batch_size=0)


def test_features_of_a_published_tower_are_the_fixture(data_dir, tmp_path):
    folder = data_dir / "pretrained"
    with np.load(folder / "efficientnet_lite0_fixture.npz") as file:
        pixels, pooled = file["pixels"], file["pooled"]
    tower = efficientnet_lite0(folder / "efficientnet_lite0.safetensors")
    features = frozen_features(tower, Stream.of(pixels[:, None]), cache_dir=tmp_path, batch_size=2)
    np.testing.assert_allclose(features.values[:, 0], pooled, atol=1e-4)
    read = frozen_features(tower, Stream.of(pixels[:, None]), cache_dir=tmp_path, batch_size=1)
    np.testing.assert_array_equal(read.values, features.values)


def test_sentences_of_about_one_length_pass_together_and_each_gets_its_own_vector(tmp_path):
    draw, net = np.random.default_rng(0), BagOfWords(dim=4, vocab_size=9)
    tower = Tower(net, net.init(jax.random.key(0), Stream.of(jnp.ones((1, 2), jnp.int32))), "")
    lengths = draw.integers(0, 14, (6, 3))
    lengths[0] = 0, 1, 13  # one is absent
    mask = np.arange(13) < lengths[..., None]
    mask[1, 1] = np.arange(13) % 2 == 1  # holes
    ids = Stream(np.where(mask, draw.integers(0, 9, mask.shape), 100), mask)
    found = sentence_features(tower, ids, cache_dir=tmp_path, batch_size=4, step=5)
    whole = net.apply(tower.variables, ids)
    np.testing.assert_array_equal(found.mask, whole.mask)
    np.testing.assert_allclose(found.values, whole.values, atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 3  # of up to 5, 10 and 13 words
    with pytest.raises(UsageError, match="none of the 18 sentences has a word"):
        sentence_features(tower, ids.absent())
    with pytest.raises(UsageError, match="nested ids"):
        sentence_features(tower, Stream(ids.values[0], ids.mask[0]))


def test_half_precision_takes_half_the_room_and_rounds_by_a_twentieth_of_a_percent(tower, stream, tmp_path):
    whole = frozen_features(tower, stream, cache_dir=tmp_path)
    half = frozen_features(tower, stream, cache_dir=tmp_path, dtype=np.float16)
    assert half.values.dtype == np.float16 and len(list(tmp_path.iterdir())) == 2
    large = np.abs(whole.values) > 6.2e-5
    np.testing.assert_allclose(half.values[large], whole.values[large], rtol=2**-11)
    count = runs()
    again = frozen_features(tower, stream, cache_dir=tmp_path, dtype=np.float16)
    np.testing.assert_array_equal(again.values, half.values)
    assert runs() == count
    with pytest.raises(UsageError, match="beyond the range of float16"):
        frozen_features(tower, stream.replace(values=stream.values * 1e6), dtype=np.float16)
