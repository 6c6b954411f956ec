"""Multi30K: units that come back as words, converters, targets as ids and text, the part with photographs."""

import json

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.multi30k.convert import convert
from mmjax.datasets.multi30k.examples import read_lines
from mmjax.datasets.multi30k.vocabulary import END_ID, fit_units, plain, published_units, with_end
from mmjax.datasets.multi30k.words import readable, tokenised
from mmjax.datasets.multi30k_flickr8k.convert import convert as convert_part
from mmjax.datasets.multi30k_flickr8k.examples import read_rows
from mmjax.errors import UsageError
from mmjax.hypotheses import decode_texts
from tests.datasets import multi30k_clones

ROWS = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multi30k")
    return folder, *multi30k_clones.write_with_photographs(folder)


@pytest.fixture
def load(made, tmp_path):
    """The sets of the fixture."""

    def load(name, **options):
        return datasets.load(name, data_dir=made[0] / "data", cache_dir=tmp_path, **options)

    return load


def sentences(dataset, split):
    """Source and target of a split, spelt from their ids."""
    batch, tokenizer = dataset.splits[split], dataset.tokenizers["text"]
    spelt = []
    for stream in (batch.streams["text"], batch.target["tokens"]):
        assert all(
            row[mask][-1] == END_ID and END_ID not in row[mask][:-1] for row, mask in zip(stream.values, stream.mask)
        )
        spelt.append([tokenizer.decode(row[mask][:-1].tolist()) for row, mask in zip(stream.values, stream.mask)])
    return spelt


def test_units_give_back_words_and_know_the_letters_of_train():
    tokenizer = published_units(["a do@@ g", "a do@@ ve"], ["#version: 0.2", "d o", "v e</w>", "o g</w>"])
    assert tokenizer.encode("a dog").tokens == ["a</w>", "do", "g</w>"]
    assert tokenizer.token_to_id("a</w>") == 2 and tokenizer.token_to_id("do") == 3  # by frequency
    assert tokenizer.token_to_id("og</w>") == tokenizer.get_vocab_size() - 2  # no unit of train
    assert tokenizer.decode(tokenizer.encode("dove a dog").ids) == "dove a dog"
    assert tokenizer.encode("x").ids == [0]
    with pytest.raises(UsageError, match="two units, got 'a b c'"):
        published_units(["a"], ["a b c"])


def test_fitted_units_know_both_languages():
    tokenizer = fit_units(["A dog, a dog.", "Ein Hund."], size=60)
    assert tokenizer.decode(tokenizer.encode("A HUND, ein dog.").ids) == "a hund , ein dog ."
    assert tokenizer.token_to_id("[UNK]") == 0 and tokenizer.token_to_id("[END]") == END_ID
    with pytest.raises(UsageError, match="2 ids or more"):
        fit_units(["a"], size=1)


def test_the_end_stands_in_a_sentence_that_was_cut():
    tokenizer = fit_units(["a b c d"], size=60)
    stream = with_end(tokenizer, ["a b c d", "a"], length=3)
    assert stream.values.shape == (2, 3) and stream.mask.tolist() == [[True] * 3, [True, True, False]]
    assert stream.values[0, 2] == stream.values[1, 1] == END_ID and stream.values[1, 2] == 0


@pytest.mark.parametrize("options", [{}, {"language": "fr", "test": 2017}, {"source": "raw", "vocabulary": 100}])
def test_sentences_come_back_from_ids_and_from_the_reference(made, load, options):
    _, raw, _ = made
    dataset, language = load("multi30k", **options), options.get("language", "de")
    parts = ROWS | ({"test": "test_2017_flickr"} if "test" in options else {})
    first = 0
    for split, part in parts.items():
        source, target = sentences(dataset, split)
        spelt = [[line.lower().replace(".", " .") for line in raw[f"{part}.{one}"]] for one in ("en", language)]
        assert [source, target] == spelt
        batch = dataset.splits[split]
        assert decode_texts(batch.target["text"]) == [[line] for line in spelt[1]]
        np.testing.assert_array_equal(batch.group, first + np.arange(len(source)))
        first += len(source)
    widths = {batch.streams["text"].length for batch in dataset.splits.values()}
    assert len(widths) == 1


def test_only_rows_with_a_photograph_are_in_the_part(made, load):
    _, raw, kept = made
    for source in ("bpe", "raw"):
        dataset = load("multi30k_flickr8k", source=source)
        for split, name in ROWS.items():
            there = [row for row in range(len(raw[f"{name}.en"])) if f"{name.replace('_', '')}{row}.jpg" in kept]
            texts = [[raw[f"{name}.{one}"][row].lower().replace(".", " .") for row in there] for one in ("en", "de")]
            assert sentences(dataset, split) == texts and 0 < len(there) < len(raw[f"{name}.en"])
            pixels = dataset.splits[split].streams["image"].values
            greys = [5 * kept.index(f"{name.replace('_', '')}{row}.jpg") for row in there]
            assert (
                pixels.shape == (len(there), 1, 128, 128, 3)
                and np.abs(pixels[:, 0, 0, 0, 0] - np.array(greys)).max() < 3
            )


def test_english_is_tokenised_as_published_and_read_again(data_dir):
    raw = read_lines(data_dir / "multi30k/val.en.gz")
    wanted = [" ".join(plain(line).split()) for line in read_lines(data_dir / "multi30k_bpe/en-de.valid.en.gz")]
    assert np.mean([tokenised(one) == two for one, two in zip(raw, wanted)]) > 0.99
    again = [readable(one).lower() == " ".join(two.split()).lower() for one, two in zip(wanted, raw)]
    assert np.mean(again) > 0.95


def test_wrong_options_and_files_are_named(made, tmp_path):
    for options, words in (
        ({"source": "units"}, "'bpe' or 'raw'"),
        ({"language": "cs"}, "'de' or 'fr', got 'cs'"),
        ({"test": "2015"}, "2016, 2017, coco"),
        ({"max_words": 1}, "2 or more"),
        ({"vocabulary": 2}, "3 ids or more"),
    ):
        with pytest.raises(UsageError, match=words):
            datasets.card("multi30k", **options)
    with pytest.raises(UsageError, match="there is no"):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="make flickr8k first"):
        convert_part(made[0] / "original", tmp_path)
    (tmp_path / "text.gz").write_bytes(b"no gzip")
    with pytest.raises(UsageError, match="cannot read"):
        read_lines(tmp_path / "text.gz")
    original = tmp_path / "original"
    multi30k_clones.write(original)
    path = original / "dataset/data/task1/raw/val.de"
    path.write_text(path.read_text() + "Eine Zeile zu viel.\n")
    with pytest.raises(UsageError, match="has 5 lines, its translation 4"):
        convert(original, tmp_path / "out")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.jpg", "line": 0, "en": "A", "de": "", "fr": "C"}))
    with pytest.raises(UsageError, match="line 1 is no JSON object"):
        read_rows(tmp_path / "rows.jsonl")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("multi30k", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [29_000, 1_014, 1_000]
    tokenizer = dataset.tokenizers["text"]
    for one in ("en", "de"):  # the tokenizer splits words as the published text is split
        lines = read_lines(data_dir / f"multi30k_bpe/en-de.valid.{one}.gz")
        own = [encoding.tokens for encoding in tokenizer.encode_batch(list(map(plain, lines)))]
        assert own == [
            [u.removesuffix("@@") if u.endswith("@@") else u + "</w>" for u in line.split()] for line in lines
        ]
    references = [text for texts in decode_texts(dataset.splits["test"].target["text"]) for text in texts]
    assert sum(len(text.split()) for text in references) == 12_103  # the reference length of the published BLEU
    assert all(0 not in stream.values[stream.mask] for batch in dataset.splits.values()
               for stream in (batch.streams["text"], batch.target["tokens"]))  # fmt: skip


def test_the_real_part_with_photographs(data_dir, tmp_path):
    dataset = datasets.load("multi30k_flickr8k", data_dir=data_dir, cache_dir=tmp_path)
    whole = datasets.load("multi30k", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [6_914, 238, 239]
    for split, batch in dataset.splits.items():
        texts = {text[0] for text in decode_texts(whole.splits[split].target["text"])}
        assert all(text[0] in texts for text in decode_texts(batch.target["text"]))
