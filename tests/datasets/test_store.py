"""The cache of prepared data sets: a full disk and damaged files are one line that names them."""

import contextlib

import pytest

from mmjax import datasets
from mmjax.errors import UsageError


def load(folder):
    return datasets.source("digits", "test", cache_dir=folder)  # embedded: needs no source files


@contextlib.contextmanager
def small_disk(size):
    """A disk on which no file can be larger than so many bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    load(folder)
    return folder


@pytest.mark.parametrize("size", [0, 500, 20_000])
def test_a_full_disk_is_one_line_and_the_next_run_prepares(cache, tmp_path, size):
    with (
        small_disk(size),
        pytest.raises(UsageError, match=r"digits: cannot write the cache folder .*--cache-dir$") as error,
    ):
        load(tmp_path)
    assert "\n" not in str(error.value)
    assert len(load(tmp_path)) == len(load(cache))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b'{"name": 3}'])
def test_a_damaged_description_is_named_in_one_line(cache, content):
    (path,) = cache.glob("digits/*/*/dataset_info.json")
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(UsageError, match=r"digits: the prepared files in .* are damaged .*run again$") as error:
            load(cache)
    finally:
        path.write_bytes(whole)
    assert "\n" not in str(error.value) and "dataset_info.json" in str(error.value)
    load(cache)
