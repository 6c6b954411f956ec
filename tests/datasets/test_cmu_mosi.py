"""CMU-MOSI: the converter and the builder on a fixture of the original's form, failures, and the real files."""

import functools
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.cmu_mosi.convert import convert
from mmjax.datasets.converting import command
from mmjax.errors import UsageError
from tests.datasets import originals


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder converted from the fixture, and what its arrays must be."""
    folder = tmp_path_factory.mktemp("mosi")
    truth = originals.cmu_mosi(folder / "original")
    convert(folder / "original", folder / "data" / "cmu_mosi")
    return folder / "data", truth


@pytest.fixture
def copy(made, tmp_path):
    """The same data folder, free to be damaged."""
    shutil.copytree(made[0], tmp_path / "data")
    return tmp_path / "data"


def test_the_converter_keeps_rows_and_labels_together(made):
    folder, truth = made
    with np.load(folder / "cmu_mosi" / "mosi_utterance.npz") as file:
        for name in ("text", "audio", "video", "label"):
            np.testing.assert_array_equal(file[name], truth[name])
        np.testing.assert_array_equal(file["segment"], np.tile(np.arange(1, 12), 20))
        np.testing.assert_array_equal(file["split_bclstm"], np.repeat(np.arange(20) >= 14, 11))
        assert list(file["video_name"]) == originals.VIDEOS


def test_load_reads_them_in_order_and_never_lets_a_video_cross(made, tmp_path):
    folder, truth = made
    dataset = datasets.load("cmu_mosi", data_dir=folder, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [22, 132, 66]  # 12 of the 14 videos validate
    rows = {video: np.flatnonzero(truth["number"] == video) for video in range(20)}
    seen = []
    for batch in dataset.splits.values():
        videos = list(dict.fromkeys(batch.group.tolist()))
        seen += videos
        expected = np.concatenate([rows[video] for video in videos])
        np.testing.assert_array_equal(batch.target, truth["label"][expected])
        for name, stream in batch.streams.items():
            np.testing.assert_array_equal(stream.values[:, 0], truth[name][expected])
            assert stream.mask.all()
    assert sorted(seen) == list(range(20))
    again = datasets.load("cmu_mosi", cache_dir=tmp_path, data_dir=folder)
    assert again.sha256 == dataset.sha256


def test_the_source_is_random_access_and_pickles(made, tmp_path):
    source = datasets.source("cmu_mosi", "test", data_dir=made[0], cache_dir=tmp_path)
    copied = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copied[5]["audio"], source[5]["audio"])
    assert len(source) == 66 and repr(source) == repr(copied)


def load(folder, tmp_path, **options):
    return datasets.load("cmu_mosi", data_dir=folder, cache_dir=tmp_path / "cache", **options)


def test_without_a_folder_one_line_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.delenv("MMJAX_DATA_DIR", raising=False)
    with pytest.raises(UsageError, match=r"bc-LSTM/data .* --data-dir .*holds cmu_mosi") as error:
        load(None, tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="no data directory"):
        load(tmp_path / "nowhere", tmp_path)
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match=r"mosi_utterance\.npz is missing"):
        load(tmp_path / "bare", tmp_path)
    monkeypatch.setenv("MMJAX_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match="elsewhere"):
        load(None, tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "altered"])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_damaged_source_file_is_named_even_when_prepared_files_exist(copy, tmp_path, damage, prepared):
    if prepared:
        load(copy, tmp_path)
    file = copy / "cmu_mosi" / "mosi_utterance.npz"
    content = bytearray(file.read_bytes())
    if damage == "altered":
        content[len(content) // 2] ^= 1
    else:
        del content[-100:]
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"mosi_utterance\.npz is truncated or altered") as error:
        load(copy, tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_prepared_files_are_noticed(copy, tmp_path):
    load(copy, tmp_path)
    record = next((tmp_path / "cache").rglob("*train.array_record*"))
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 255
    record.write_bytes(content)
    with pytest.raises(UsageError, match=r"damaged .*delete that folder"):
        load(copy, tmp_path)


def test_nan_in_the_source_names_set_modality_and_example(copy, tmp_path):
    from mmjax.datasets.sources import write_manifest

    path = copy / "cmu_mosi" / "mosi_utterance.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["audio"][14 * 11 + 3, 7] = np.nan  # the first test video is number 14
    np.savez(path, **arrays)
    write_manifest(path.parent, [path.name])
    with pytest.raises(UsageError, match="cmu_mosi: test: stream 'audio': example 3 holds NaN"):
        load(copy, tmp_path)


def test_scores_and_options(made, tmp_path):
    with pytest.raises(UsageError, match="carry no 'score'"):
        load(made[0], tmp_path, target="score")
    with pytest.raises(UsageError, match="'label' or 'score'"):
        load(made[0], tmp_path, target="stars")


def test_left_over_folders_of_killed_preparations_are_removed(made, tmp_path):
    left = tmp_path / "cache" / "cmu_mosi" / "abc" / "incomplete.XYZ_1.0.0"
    left.mkdir(parents=True)
    (left / "part").write_text("half")
    load(made[0], tmp_path)
    assert not left.exists()


def _digest(folder, cache, queue):
    queue.put(datasets.load("cmu_mosi", data_dir=folder, cache_dir=cache).sha256)


def test_processes_that_prepare_at_once_agree(made, tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_digest, args=(made[0], tmp_path, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    digests = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert digests[0] == digests[1] == datasets.load("cmu_mosi", data_dir=made[0], cache_dir=tmp_path).sha256
    assert len(list(tmp_path.glob("cmu_mosi/*/*/dataset_info.json"))) == 1


def test_the_command_line_of_the_converter(made, tmp_path, capsys):
    run = functools.partial(command, "mmjax.datasets.cmu_mosi.convert", "BC_LSTM_DATA", convert)
    assert run(["x"]) == 2 and "usage: python -m mmjax.datasets.cmu_mosi.convert" in capsys.readouterr().err
    assert run([str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert run([str(made[0].parent / "original"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip().endswith("mosi_utterance.npz")


def test_the_real_files(data_dir, tmp_path):
    dataset = datasets.load("cmu_mosi", data_dir=data_dir, cache_dir=tmp_path)
    train, validation, test = dataset.splits.values()
    assert train.size + validation.size == 1447 and test.size == 752
    assert [len(np.unique(batch.group)) for batch in dataset.splits.values()] == [50, 12, 31]
    assert (np.bincount(train.target) + np.bincount(validation.target)).tolist() == [738, 709]
    assert round(dataset.majority(), 3) == 0.621
    rows = datasets.views.by_group(dataset).splits["test"]
    assert rows.streams["text"].values.shape == (31, 63, 100) and (rows.index >= 0).sum() == 752
    scores = datasets.load("cmu_mosi", data_dir=data_dir, cache_dir=tmp_path, target="score")
    assert scores.card.num_classes is None
    np.testing.assert_array_equal(scores.splits["test"].target >= 0, test.target)
