"""DAQUAR: converter, the closed list of answers, the reduced set, and the real files."""

import collections

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.daquar import UNLISTED
from mmjax.datasets.daquar.convert import convert
from mmjax.datasets.daquar.examples import read_questions
from mmjax.errors import UsageError
from mmjax.stream import by_index, target_items
from tests.datasets import originals


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("daquar")
    lists = originals.daquar(folder / "original")
    convert(folder / "original", folder / "data" / "daquar")
    return folder, lists, tmp_path_factory.mktemp("cache")


def load(made, **options):
    return datasets.load("daquar", data_dir=made[0] / "data", cache_dir=made[2], **options)


def test_questions_and_answers_are_those_of_the_files(made):
    dataset = load(made, min_count=1)
    names, found = dataset.card.class_names, collections.defaultdict(list)
    for split, batch in dataset.splits.items():
        answers, groups = target_items(batch), by_index(batch.group, batch.index)
        ids = by_index(np.where(batch.streams["question"].mask, batch.streams["question"].values, -1), batch.index)
        for answer, group, row in zip(answers, groups, ids):
            text = dataset.tokenizers["question"].decode(row[row >= 0].tolist())
            found["test" if split == "test" else "train"].append((text, names[answer], int(group)))
    for part, rows in made[1].items():
        assert sorted(found[part]) == sorted(rows)
    assert dataset.splits["train"].streams["image"].values.shape[1:] == (1, 168, 224, 3)
    assert [batch.size for batch in dataset.splits.values()] == [10, 2, 4]


def test_answers_seen_too_seldom_are_the_last_class(made):
    counts = collections.Counter(answer for _, answer, _ in made[1]["train"])
    assert 0 < counts["bin"] < 4 < min(counts["2"], counts["chair"])
    dataset = load(made, min_count=4)
    names = dataset.card.class_names
    assert names[-1] == UNLISTED and "bin" not in names and dataset.card.num_classes == len(names)
    assert counts[names[0]] == max(counts.values())
    test = np.asarray(names)[target_items(dataset.splits["test"])]
    expected = [answer if counts[answer] >= 4 else UNLISTED for _, answer, _ in made[1]["test"]]
    assert sorted(test) == sorted(expected) and UNLISTED in expected
    most = max(expected.count(name) for name in names[:-1])
    assert dataset.majority() == most / len(expected)  # nobody may answer that it is not on the list
    with pytest.raises(UsageError, match="stands 1000 times in train"):
        load(made, min_count=1000)
    with pytest.raises(UsageError, match="min_count is 1 or more"):
        datasets.card("daquar", min_count=0)


def test_questions_of_the_reduced_set_do_not_name_the_photograph(made):
    dataset, full = load(made, reduced=True), load(made)
    assert dataset.card.name == "daquar_reduced" and dataset.splits["test"].size == full.splits["test"].size
    for name, number in {f"image{n}": n for n in range(1, 17)}.items():
        assert dataset.tokenizers["question"].token_to_id(name) is None, number
    np.testing.assert_array_equal(dataset.splits["test"].target, full.splits["test"].target)


def test_a_file_of_another_form_is_refused(made, tmp_path):
    (tmp_path / "short").write_text("what is it ?\nchair\n")
    with pytest.raises(UsageError, match="line 1 begins no question about a photograph"):
        read_questions(tmp_path / "short", reduced=False)
    with pytest.raises(UsageError, match="line 1 begins no question about a photograph"):
        read_questions(tmp_path / "short", reduced=True)
    with pytest.raises(UsageError, match=r"no qa\.894\.raw\.train\.format_triple"):
        convert(tmp_path, tmp_path / "out")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("daquar", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [662, 132, 653]
    items = [target_items(batch) for batch in dataset.splits.values()]
    assert len(items[0]) + len(items[1]) == 6_795 and len(items[2]) == 5_673
    assert dataset.card.num_classes == 264 and round(100 * dataset.majority(), 1) == 5.0
    assert round(100 * np.mean(items[2] != 263), 1) == 84.1
    reduced = datasets.load("daquar", data_dir=data_dir, cache_dir=tmp_path, reduced=True)
    items = [len(target_items(batch)) for batch in reduced.splits.values()]
    assert items[0] + items[1] == 3_876 and items[2] == 297 and round(100 * reduced.majority(), 1) == 7.7
    words = datasets.load("daquar", data_dir=data_dir, cache_dir=tmp_path, min_count=1)
    assert round(100 * np.mean(target_items(words.splits["test"]) != words.card.num_classes - 1), 1) == 90.3
