"""Flickr8k: converter, nested captions in memory and as records, and the real files."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmjax import datasets
from mmjax.data import Records, ordered_batches
from mmjax.datasets.flickr8k import captions_of, example_of, items_of
from mmjax.datasets.flickr8k.convert import convert
from mmjax.datasets.flickr8k.examples import decode, read_captions
from mmjax.datasets.raw.words import fit_tokenizer
from mmjax.errors import UsageError
from mmjax.hypotheses import decode_texts
from tests.datasets import originals


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flickr8k")
    captions = originals.flickr8k(folder / "original")
    convert(folder / "original", folder / "data" / "flickr8k")
    return folder, captions


@pytest.fixture(scope="module")
def loaded(made, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return datasets.load("flickr8k", data_dir=made[0] / "data", cache_dir=cache), cache


def test_a_photograph_with_its_captions_is_an_example(made, loaded):
    folder, captions = made
    dataset, _ = loaded
    assert [batch.size for batch in dataset.splits.values()] == [8, 4, 4]
    first = 0
    for split, part in (("train", "train"), ("validation", "dev"), ("test", "test")):
        names = (folder / "original" / f"Flickr_8k.{part}Images.txt").read_text().split()
        batch = dataset.splits[split]
        np.testing.assert_array_equal(batch.group, first + np.arange(len(names)))
        np.testing.assert_array_equal(batch.target, batch.group)
        first += len(names)
        with tarfile.open(folder / "data" / "flickr8k" / f"images_{part}_128.tar") as file:
            for row, name in enumerate(names):
                pixels = np.asarray(Image.open(io.BytesIO(file.extractfile(name).read())))
                np.testing.assert_array_equal(batch.streams["image"].values[row, 0], pixels)
                text = batch.streams["text"]
                for sentence, mask, caption in zip(text.values[row], text.mask[row], captions[name]):
                    ids = dataset.tokenizers["text"].encode(caption).ids
                    assert sentence[mask].tolist() == ids and mask[: len(ids)].all()


def test_the_vocabulary_is_that_of_train(loaded):
    tokenizer = loaded[0].tokenizers["text"]
    assert tokenizer.token_to_id("held") is None and tokenizer.token_to_id("dog") is not None
    assert tokenizer.decode(tokenizer.encode("a dog").ids) == "a dog"


def test_options_of_reading_prepare_nothing_anew(made, loaded):
    dataset, cache = loaded
    folders = sorted(cache.glob("flickr8k/*"))
    short = datasets.load("flickr8k", data_dir=made[0] / "data", cache_dir=cache, max_words=3)
    assert short.splits["train"].streams["text"].values.shape == (8, 5, 3)
    assert sorted(cache.glob("flickr8k/*")) == folders and short.sha256 != dataset.sha256
    with pytest.raises(UsageError, match="'words', 'bpe' or 'minilm'"):
        datasets.card("flickr8k", tokenizer="letters")


def test_records_give_the_same_batch_as_memory(made, loaded):
    dataset, cache = loaded
    source = datasets.source("flickr8k", "test", data_dir=made[0] / "data", cache_dir=cache)
    records = Records(source, example_of(dataset.tokenizers["text"]), items_of())
    (batch,) = ordered_batches(records, 4)
    whole = dataset.splits["test"]
    for name, stream in whole.streams.items():
        np.testing.assert_array_equal(batch.streams[name].values, stream.values)
        np.testing.assert_array_equal(batch.streams[name].mask, stream.mask)
    np.testing.assert_array_equal(batch.target, whole.target)
    np.testing.assert_array_equal(batch.group, whole.group)
    cut = Records(source, example_of(dataset.tokenizers["text"], 64), items_of(64, max_words=3))
    (batch,) = ordered_batches(cut, 4)
    np.testing.assert_array_equal(batch.streams["text"].mask, whole.streams["text"].mask[:, :, :3])
    halves = whole.streams["image"].values.reshape(4, 1, 64, 2, 64, 2, 3).mean((3, 5))
    assert np.abs(batch.streams["image"].values - halves).max() <= 1  # means of areas, rounded twice


def test_the_converter_stretches_to_one_size(made):
    folder, _ = made
    name = (folder / "original" / "Flickr_8k.testImages.txt").read_text().split()[0]
    with tarfile.open(folder / "data" / "flickr8k" / "images_test_128.tar") as file:
        assert file.getnames() == sorted(file.getnames())
        pixels = decode(np.frombuffer(file.extractfile(name).read(), np.uint8))
    original = Image.open(folder / "original" / "images" / name)
    assert pixels.shape == (128, 128, 3) and original.size == (150, 100)
    small = np.asarray(original.resize((128, 128), Image.Resampling.LANCZOS), float)
    assert np.abs(pixels - small).mean() < 6  # JPEG of a smooth picture


def test_the_converter_refuses_other_files(tmp_path):
    with pytest.raises(UsageError, match=r"no Flickr8k\.token\.txt"):
        convert(tmp_path, tmp_path / "out")
    originals.flickr8k(tmp_path / "original")
    tokens = tmp_path / "original" / "Flickr8k.token.txt"
    lines = tokens.read_text().splitlines()
    tokens.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UsageError, match="has 4 captions, expected 5"):
        convert(tmp_path / "original", tmp_path / "out")
    tokens.write_text("\n".join([lines[1], *lines]))
    with pytest.raises(UsageError, match="of a photograph with 0 before it"):
        convert(tmp_path / "original", tmp_path / "out")
    tokens.write_text("\n".join(lines) + "\n")
    (tmp_path / "original" / "images" / "p00.jpg").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"cannot read .*p00\.jpg"):
        convert(tmp_path / "original", tmp_path / "out")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("flickr8k", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [6000, 1000, 1000]
    train = dataset.splits["train"].streams
    assert all(batch.streams["text"].mask.any(-1).all() for batch in dataset.splits.values())
    means = train["image"].values.mean((0, 1, 2, 3))  # those that came with the data
    np.testing.assert_allclose(means, (116.5, 112.9, 101.6), atol=1.5)
    first = dataset.splits["test"].streams["text"]
    words = dataset.tokenizers["text"].decode(first.values[0, 0][first.mask[0, 0]].tolist())
    assert words == "the dogs are in the snow in front of a fence ."


def test_captions_may_be_the_target(made, loaded):
    dataset, cache = loaded
    said = datasets.load("flickr8k", data_dir=made[0] / "data", cache_dir=cache, captions=True, max_words=6)
    assert said.streams == ("image",) and said.card.kinds == {"image": "image"}
    tokenizer = said.tokenizers["text"]
    end, raw = tokenizer.get_vocab_size(), read_captions(made[0] / "data" / "flickr8k" / "Flickr8k.token.txt")
    known = {tuple(captions) for captions in raw.values()}
    for split, batch in said.splits.items():
        words, mask = dataset.splits[split].streams["text"].values, dataset.splits[split].streams["text"].mask
        tokens = batch.target["tokens"]
        assert tokens.values.shape == (batch.size, 5, 7) and tokens.values.dtype == np.int32
        length = np.minimum(mask.sum(-1), 6)
        np.testing.assert_array_equal(tokens.mask.sum(-1), length + 1)
        np.testing.assert_array_equal(np.take_along_axis(tokens.values, length[..., None], -1), end)
        before = np.arange(6) < length[..., None]
        np.testing.assert_array_equal(tokens.values[..., :6][before], words[..., :6][before])
        texts = decode_texts(batch.target["text"])
        assert all(tuple(some) in known for some in texts) and len(texts) == batch.size


def test_a_photograph_may_have_fewer_captions_than_another():
    tokenizer = fit_tokenizer(["a dog a dog"])
    target = captions_of(tokenizer, [["a dog", "dog"], ["a dog dog"]], max_words=2)
    a, dog, end = tokenizer.get_vocab()["a"], tokenizer.get_vocab()["dog"], tokenizer.get_vocab_size()
    np.testing.assert_array_equal(target["tokens"].mask, [[[1, 1, 1], [1, 1, 0]], [[1, 1, 1], [0, 0, 0]]])
    np.testing.assert_array_equal(target["tokens"].values, [[[a, dog, end], [dog, end, 0]], [[a, dog, end], [0, 0, 0]]])
    assert decode_texts(target["text"]) == [["a dog", "dog"], ["a dog dog"]]
