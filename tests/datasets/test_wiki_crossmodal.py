"""Wikipedia cross-modal retrieval: converter, options, and the real files."""

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.wiki_crossmodal.convert import convert, read_list
from mmjax.errors import UsageError
from tests.datasets import originals


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wiki")
    truth = originals.wiki_crossmodal(folder / "original")
    convert(folder / "original", folder / "data" / "wiki_crossmodal")
    return folder, truth


def load(folder, cache, **options):
    return datasets.load("wiki_crossmodal", data_dir=folder / "data", cache_dir=cache, **options)


def test_converter_and_builder_on_a_fixture(made, tmp_path):
    folder, truth = made
    dataset = load(folder, tmp_path, languages=("es", "en"), topics=100)
    assert dataset.streams == ("en", "es", "image", "text")
    assert [batch.size for batch in dataset.splits.values()] == [36, 4, 12]  # 2 of 20 articles of 2 sections validate
    assert not set(dataset.splits["train"].group) & set(dataset.splits["validation"].group)
    for split, part in (("train", "tr"), ("validation", "tr"), ("test", "te")):
        batch = dataset.splits[split]
        rows = [int(np.flatnonzero((truth[f"I_{part}"] == v).all(1))[0]) for v in batch.streams["image"].values[:, 0]]
        np.testing.assert_array_equal(batch.target, truth[f"category_{part}"][rows] - 1)
        names = np.asarray(truth[f"article_{part}"])[rows]
        np.testing.assert_array_equal(batch.group, np.searchsorted(truth["articles"], names))
        np.testing.assert_array_equal(batch.streams["text"].values[:, 0], truth[f"T_{part}"][rows])
        np.testing.assert_array_equal(batch.streams["es"].values[:, 0], truth[f"es_100_{part}"][rows])


def test_articles_of_train_can_be_left_out_of_test(made, tmp_path):
    folder, truth = made
    dataset = load(folder, tmp_path, test="unshared")
    seen = np.searchsorted(truth["articles"], truth["article_tr"])
    assert dataset.splits["test"].size == 4 and not set(dataset.splits["test"].group) & set(seen)
    assert not dataset.card.groups_cross and not dataset.card.caution and "unshared" in dataset.split_id
    with pytest.raises(UsageError, match="'all' or 'unshared'"):
        datasets.card("wiki_crossmodal", test="some")
    with pytest.raises(UsageError, match="en, de, es, got 'fr'"):
        datasets.card("wiki_crossmodal", languages=("fr",))
    with pytest.raises(UsageError, match="10 or 100"):
        datasets.card("wiki_crossmodal", topics=50)


def test_the_converter_refuses_other_files(made, tmp_path):
    with pytest.raises(UsageError, match="no list of text"):
        convert(tmp_path, tmp_path / "out")
    (tmp_path / "list").write_text("a-1 b 3\n")
    with pytest.raises(UsageError, match="no list of text"):
        read_list(tmp_path / "list")
    originals.wiki_crossmodal(tmp_path / "other", seed=1)
    german = tmp_path / "other" / "Topics10" / "German-10.mat"
    german.write_bytes((made[0] / "original" / "Topics10" / "German-10.mat").read_bytes())
    with pytest.raises(UsageError, match=r"German-10\.mat is of other images"):
        convert(tmp_path / "other", tmp_path / "out")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("wiki_crossmodal", data_dir=data_dir, cache_dir=tmp_path, languages=("en", "de", "es"))
    train, validation, test = dataset.splits.values()
    assert train.size + validation.size == 2173 and test.size == 693
    assert round(100 * dataset.majority(), 1) == 15.0
    counts = np.bincount(np.concatenate([train.target, validation.target]))
    assert counts.tolist() == [138, 272, 244, 248, 202, 178, 186, 144, 214, 347]
    articles = np.concatenate([train.group, validation.group])
    assert np.isin(test.group, articles).sum() == 552
    for name, stream in test.streams.items():
        np.testing.assert_allclose(stream.values.sum(-1), 1, rtol=1e-5, err_msg=name)
