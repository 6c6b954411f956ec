"""easy-VQA: converter, a picture with all its questions as one example, and the real files."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmjax import datasets
from mmjax.datasets.easy_vqa.convert import convert
from mmjax.datasets.easy_vqa.examples import ANSWERS
from mmjax.errors import UsageError
from mmjax.stream import by_index, target_items
from tests.datasets import originals


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("easy_vqa")
    lists = originals.easy_vqa(folder / "original")
    convert(folder / "original", folder / "data" / "easy_vqa")
    return folder, lists


@pytest.fixture(scope="module")
def loaded(made, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return datasets.load("easy_vqa", data_dir=made[0] / "data", cache_dir=cache), cache


def test_a_picture_with_its_questions_is_an_example(made, loaded):
    folder, lists = made
    dataset, _ = loaded
    tokenizer, tars = dataset.tokenizers["question"], {}
    for part in ("train", "test"):
        with tarfile.open(folder / "data" / "easy_vqa" / f"images_{part}.tar") as file:
            tars[part] = {int(one.name[:-4]): file.extractfile(one).read() for one in file}
    seen = set()
    for split, batch in dataset.splits.items():
        part, first = ("test", 12) if split == "test" else ("train", 0)
        text, items = batch.streams["question"], 0
        for row in range(batch.size):
            (number,) = {int(group) - first for group in batch.group[row] if group >= 0}
            assert (part, number) not in seen
            seen.add((part, number))
            pixels = np.asarray(Image.open(io.BytesIO(tars[part][number])))
            np.testing.assert_array_equal(batch.streams["image"].values[row, 0], pixels)
            asked = [(question, answer) for question, answer, picture in lists[part] if picture == number]
            real = batch.index[row] >= 0
            np.testing.assert_array_equal(batch.index[row][real], items + np.arange(len(asked)))
            items += len(asked)
            assert real.sum() == len(asked) and (text.mask[row].any(-1) == real).all()
            for place, (question, answer) in enumerate(asked):
                ids = text.values[row, place][text.mask[row, place]].tolist()
                assert ids == tokenizer.encode(question).ids and ANSWERS[batch.target[row, place]] == answer
        assert (batch.target[batch.index < 0] == 0).all() and (batch.group[batch.index < 0] == -1).all()
    assert len(seen) == 16 and [batch.size for batch in dataset.splits.values()] == [6, 6, 4]


def test_the_validation_pictures_follow_from_the_seed(made, loaded):
    dataset, cache = loaded
    other = datasets.load("easy_vqa", data_dir=made[0] / "data", cache_dir=cache, seed=1)
    pictures = [set(one.splits["validation"].group[:, 0].tolist()) for one in (dataset, other)]
    assert pictures[0] != pictures[1] and dataset.split_id != other.split_id
    with pytest.raises(UsageError, match="max_words 1 or more"):
        datasets.card("easy_vqa", max_words=0)


def test_the_converter_refuses_other_files(tmp_path):
    with pytest.raises(UsageError, match=r"no train/questions\.json"):
        convert(tmp_path, tmp_path / "out")
    originals.easy_vqa(tmp_path / "original")
    (tmp_path / "original" / "test" / "images" / "1.png").unlink()
    with pytest.raises(UsageError, match=r"1\.png is missing"):
        convert(tmp_path / "original", tmp_path / "out")
    (tmp_path / "original" / "train" / "questions.json").write_text('[["what?", "purple", 0]]')
    with pytest.raises(UsageError, match="answered by 'purple'"):
        convert(tmp_path / "original", tmp_path / "out")
    (tmp_path / "original" / "train" / "questions.json").write_text("[1]")
    with pytest.raises(UsageError, match="is no list of"):
        convert(tmp_path / "original", tmp_path / "out")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("easy_vqa", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [3600, 400, 1000]
    items = [len(target_items(batch)) for batch in dataset.splits.values()]
    assert items[0] + items[1] == 38_575 and items[2] == 9_673
    assert round(100 * dataset.majority(), 1) == 37.3
    assert all(batch.streams["question"].mask.any(-1).sum() == n for batch, n in zip(dataset.splits.values(), items))
    prior, right = {}, 0  # the most frequent answer of each question, over all of the official train part
    for split in ("train", "validation", "test"):
        batch = dataset.splits[split]
        for ids, answer in zip(by_index(batch.streams["question"].values, batch.index), target_items(batch)):
            if split != "test":
                prior.setdefault(ids.tobytes(), np.zeros(13))[answer] += 1
            else:
                right += prior[ids.tobytes()].argmax() == answer
    assert len(prior) == 107 and abs(100 * right / items[2] - 67.0) < 0.1  # ties are broken one way or the other
