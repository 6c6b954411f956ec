"""What does not fit is listed once, whole; a file is the one it should be."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax.errors import UsageError
from mmjax.files import DamagedFile, file_sha256
from mmjax.pretrained.weights import CONV, LINEAR, Source, place_tensors, read_tensors

LIKE = {
    "params": {
        "conv": {"kernel": jax.ShapeDtypeStruct((3, 2, 4, 5), np.float32)},
        "dense": {"kernel": jax.ShapeDtypeStruct((5, 7), np.float32), "bias": jax.ShapeDtypeStruct((7,), np.float32)},
    },
    "constants": {"table": jax.ShapeDtypeStruct((4, 3), np.float32)},
    "batch_stats": {"mean": jax.ShapeDtypeStruct((5,), np.float32)},
}
SOURCES = {
    "params/conv/kernel": Source("c.weight", CONV),
    "params/dense/kernel": Source("d.weight", LINEAR),
    "params/dense/bias": Source("d.bias"),
    "batch_stats/mean": Source("mean"),
    "constants/table": Source("table"),
    "params/other/kernel": Source("of_a_part_that_is_not_used"),
}


@pytest.fixture
def tensors():
    draw = np.random.default_rng(0)
    shapes = {"c.weight": (5, 4, 3, 2), "d.weight": (7, 5), "d.bias": (7,), "mean": (5,), "table": (4, 3)}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_tensors_are_placed_by_name_and_layout(tensors):
    placed = place_tensors({**tensors, "counter": np.int64(3)}, LIKE, SOURCES, file="x", unused=frozenset({"counter"}))
    assert jax.tree.map(np.shape, placed) == jax.tree.map(lambda leaf: leaf.shape, LIKE)
    kernel = placed["params"]["conv"]["kernel"]
    assert kernel[2, 1, 3, 0] == tensors["c.weight"][0, 3, 2, 1] and kernel.flags.c_contiguous
    assert placed["params"]["dense"]["kernel"][4, 6] == tensors["d.weight"][6, 4]
    np.testing.assert_array_equal(placed["batch_stats"]["mean"], tensors["mean"])
    np.testing.assert_array_equal(placed["constants"]["table"], tensors["table"])


def test_half_precision_becomes_float32(tensors):
    half = {name: values.astype(np.float16) for name, values in tensors.items()}
    placed = place_tensors(half, LIKE, SOURCES, file="x")
    assert {leaf.dtype for leaf in jax.tree.leaves(placed)} == {np.dtype(np.float32)}


def test_all_that_does_not_fit_is_in_one_error(tensors):
    del tensors["d.weight"], tensors["mean"]
    tensors |= {"c.weight": tensors["c.weight"].T, "d.bias": np.zeros(7, np.int32), "extra": np.zeros((1, 2))}
    with pytest.raises(UsageError) as error:
        place_tensors(tensors, LIKE, SOURCES, file="folder/file")
    assert str(error.value) == (
        "the weights of 'folder/file' do not fit: missing: d.weight [7, 5], mean [5]; left over: extra [1, 2]; wrong "
        "shape: c.weight is float32 [2, 3, 4, 5] where floating [5, 4, 3, 2] is needed, d.bias is int32 [7] where "
        "floating [7] is needed"
    )


def test_a_file_is_named_with_what_is_wrong_with_it(tmp_path, tensors):
    path = tmp_path / "w.safetensors"
    save_file(tensors, path)
    found, digest = read_tensors(path, file_sha256(path))
    assert digest == file_sha256(path) and found.keys() == tensors.keys()
    np.testing.assert_array_equal(found["mean"], tensors["mean"])
    with pytest.raises(DamagedFile, match=rf"w\.safetensors .*its sha256 is {digest}, that of the published file 12"):
        read_tensors(path, "12")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DamagedFile, match=r"w\.safetensors"):
        read_tensors(path)
    with pytest.raises(UsageError, match=r"there is no file .*none"):
        read_tensors(tmp_path / "none")
