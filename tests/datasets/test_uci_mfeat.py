"""UCI multiple features: converter, builder, and the real file."""

import numpy as np
import pytest

from mmjax import datasets
from mmjax.datasets.uci_mfeat.convert import convert
from mmjax.errors import UsageError
from tests.datasets import originals


def test_converter_and_builder_on_a_fixture(tmp_path):
    truth = originals.uci_mfeat(tmp_path / "original")
    convert(tmp_path / "original", tmp_path / "data" / "uci_mfeat")
    dataset = datasets.load("uci_mfeat", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    assert [batch.size for batch in dataset.splits.values()] == [60, 10, 30]
    for batch in dataset.splits.values():
        assert len(set(np.bincount(batch.target))) == 1  # class by class
        np.testing.assert_array_equal(batch.target, truth["label"][batch.group])
        for name, stream in batch.streams.items():
            np.testing.assert_array_equal(stream.values[:, 0], truth[name][batch.group])


def test_the_converter_refuses_other_files(tmp_path):
    original = tmp_path / "original"
    originals.uci_mfeat(original)
    path = original / "mfeat-mor.csv"
    text = path.read_text()
    path.write_text(text.replace("\n", ",1\n"))
    with pytest.raises(UsageError, match=r"mfeat-mor\.csv has 8 columns"):
        convert(original, tmp_path / "out")
    lines = text.splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1][:-1] + "3"]))
    with pytest.raises(UsageError, match=r"labels in .* differ"):
        convert(original, tmp_path / "out")
    path.unlink()
    with pytest.raises(UsageError, match="cannot read"):
        convert(original, tmp_path / "out")


def test_the_real_file(data_dir, tmp_path):
    dataset = datasets.load("uci_mfeat", data_dir=data_dir, cache_dir=tmp_path)
    assert [batch.size for batch in dataset.splits.values()] == [1200, 200, 600]
    assert dataset.streams == ("fac", "fou", "kar", "mor", "pix", "zer") and dataset.majority() == 0.1
