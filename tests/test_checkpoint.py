"""What is saved comes back bit for bit, wherever it lies; damage is seen; the newest and the best stay."""

import contextlib
import shutil
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.checkpoint import Checkpoints, _digests, export_params, import_params
from mmjax.errors import UsageError
from mmjax.files import replace_file
from mmjax.sharding import make_mesh

TREE = {
    "matrix": jnp.arange(12.0).reshape(3, 4),
    "key": jax.random.key(3),
    "keys": jax.vmap(jax.random.key)(jnp.arange(2)),
    "half": jnp.linspace(0, 1, 5, dtype=jnp.bfloat16),
    "flags": jnp.array([True, False, True]),
    "step": jnp.int32(7),
    "history": {"train/loss": np.linspace(0, 1, 6)},
}


def plain(tree):
    """As NumPy arrays, keys as their data."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(plain(found)), jax.tree.leaves(plain(expected)), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def largest_file(folder):
    """Where the numbers stand."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Seven checkpoints, scores among them a tie and a NaN."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore(TREE) is None and checkpoints.restore_meta() is None
        for step, score in enumerate([0.3, 0.1, 0.2, float("nan"), 0.1, None, None]):
            checkpoints.save(step, TREE | {"step": jnp.int32(step)}, {"note": [step, 0.1]}, score=score)
    return folder


def test_comes_back_bit_for_bit_with_its_types(saved):
    with Checkpoints(saved) as checkpoints:
        step, tree = checkpoints.restore(TREE)
        assert step == 6 and checkpoints.restore_meta() == {"note": [6, 0.1]}
    assert_same(tree, TREE | {"step": jnp.int32(6)})
    assert isinstance(tree["history"]["train/loss"], np.ndarray) and isinstance(tree["matrix"], jax.Array)
    assert tree["keys"].dtype == TREE["keys"].dtype


def test_the_newest_two_and_the_earliest_best_stay_also_after_reopening(saved):
    with Checkpoints(saved) as checkpoints:
        assert (checkpoints.steps, checkpoints.best_step) == ([1, 5, 6], 1)
        assert int(checkpoints.restore(TREE, step=1)[1]["step"]) == 1


def test_what_does_not_fit_is_named(saved):
    like = {**TREE, "matrix": jnp.zeros((3, 5)), "half": TREE["half"].astype(jnp.float32), "new": jnp.zeros(1)}
    del like["flags"]
    with Checkpoints(saved) as checkpoints, pytest.raises(UsageError) as error:
        checkpoints.restore(like)
    for part in ("lacks new", "unexpected flags", "half as bfloat16[5], wanted float32[5]", "matrix as float32[3, 4]"):
        assert part in str(error.value)


def test_a_field_that_is_none_is_as_if_it_were_not_there(tmp_path):
    class Before(flax.struct.PyTreeNode):
        z: Any
        a: Any

    class After(Before):
        state: Any = None

    two = jnp.float32(1), jnp.float32(2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"inner": Before(*two)})
        step, tree = checkpoints.restore({"inner": After(*two)})
        assert step == 1 and tree == {"inner": After(*two, None)}
        with pytest.raises(UsageError, match="lacks inner/state"):
            checkpoints.restore({"inner": After(*two, two[0])})
        checkpoints.save(2, {"inner": After(*two, {"w": jax.random.key(1)})})
        restored = checkpoints.restore({"inner": After(*two, {"w": jax.random.key(0)})})[1]["inner"]
        assert isinstance(restored, After) and (restored.z, restored.a) == two
        assert jnp.array_equal(jax.random.key_data(restored.state["w"]), jax.random.key_data(jax.random.key(1)))


def test_an_older_step_is_refused_and_a_known_one_stays(saved):
    with Checkpoints(saved) as checkpoints:
        checkpoints.save(6, {"other": jnp.zeros(1)})
        assert checkpoints.restore(TREE)[0] == 6
        with pytest.raises(RuntimeError, match=r"checkpoint 3 was not saved .*\[1, 5, 6\]"):
            checkpoints.save(3, TREE)


@pytest.mark.parametrize("damage", ["matrix: wrong digest", "state: ", "meta: "])
def test_a_damaged_newest_checkpoint_is_moved_away(tmp_path, damage):
    like = {"matrix": jax.random.normal(jax.random.key(0), (64, 64))}
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, like)
        path = largest_file(tmp_path / "2" / "state")
        content = bytearray(path.read_bytes())
        if damage.startswith("matrix"):  # Orbax restores a flipped bit without a word
            content[len(content) // 2] ^= 4
            path.write_bytes(content)
        elif damage.startswith("state"):
            path.write_bytes(content[:100])
        else:
            (tmp_path / "2" / "meta" / "metadata").write_text("{")
        with pytest.warns(UserWarning, match=f"checkpoint 2 is damaged .{damage}"):
            step, tree = checkpoints.restore(like)
        assert step == 1
        assert_same(tree, like)
        assert [path.name for path in (tmp_path / "damaged").iterdir()] == ["2-0"]
        checkpoints.save(2, like)  # Orbax alone would decline: a newer one stood there
        assert checkpoints.restore(like)[0] == 2


def test_the_digest_sees_every_bit_and_no_sharding():
    x = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    expected = _digests({"x": x})["x"]
    mesh = make_mesh(fsdp=4)
    for spec in (PartitionSpec(), PartitionSpec("data", "fsdp"), PartitionSpec(None, ("fsdp", "data"))):
        assert _digests({"x": jax.device_put(x, NamedSharding(mesh, spec))})["x"] == expected
    for word, bit in [(0, 0), (5, 31), (33, 7), (63, 12)]:
        changed = x.copy()
        changed.reshape(-1).view(np.uint32)[word] ^= np.uint32(1 << bit)
        assert _digests({"x": changed})["x"] != expected
    double = np.array([1.0, 2.0])
    assert _digests({"x": double})["x"] != _digests({"x": np.nextafter(double, 9)})["x"]


def test_restores_on_another_mesh(tmp_path):
    x = jnp.arange(64.0).reshape(8, 8)
    eight = NamedSharding(make_mesh(fsdp=4), PartitionSpec("data", "fsdp"))
    two = NamedSharding(make_mesh(fsdp=2, devices=jax.devices()[:2]), PartitionSpec("fsdp"))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": jax.device_put(x, eight)})
        like = {"x": jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=two)}
        restored = checkpoints.restore(like)[1]["x"]
    assert restored.sharding == two
    np.testing.assert_array_equal(restored, x)


class TestParameters:
    variables = {"params": {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3).T, "scale": jnp.float32(2)}}}

    def test_come_back(self, tmp_path):
        path = tmp_path / "x.safetensors"
        export_params(path, self.variables)
        assert_same(import_params(path, jax.eval_shape(lambda: self.variables)), self.variables)
        assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]

    def test_names_are_paths(self, tmp_path):
        from safetensors.numpy import load_file

        export_params(tmp_path / "x", self.variables)
        assert sorted(load_file(tmp_path / "x")) == ["params/dense/kernel", "params/dense/scale"]

    def test_what_does_not_fit_is_named(self, tmp_path):
        export_params(tmp_path / "x", self.variables)
        like = {"params": {"dense": {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros(3)}}}
        with pytest.raises(UsageError) as error:
            import_params(tmp_path / "x", like)
        for part in (
            "lacks params/dense/bias",
            "unexpected params/dense/scale",
            "params/dense/kernel as float32[3, 2]",
        ):
            assert part in str(error.value)
        (tmp_path / "x").write_bytes(b"no")
        with pytest.raises(UsageError, match="no parameters in"):
            import_params(tmp_path / "x", like)


def test_a_reader_beside_a_run_cleans_creates_and_moves_nothing(saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    unfinished = folder / "9.orbax-checkpoint-tmp-17"  # what a run that saves just now has there
    unfinished.mkdir()
    (unfinished / "part").write_text("half")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.best_step == 1 and checkpoints.restore(TREE, 1)[0] == 1
        assert checkpoints.restore(TREE)[0] == 6
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    file = largest_file(folder / "1")
    file.write_bytes(b"")
    with (
        Checkpoints(folder, read_only=True) as checkpoints,
        pytest.raises(UsageError, match=r"checkpoint 1 .* damaged"),
    ):
        checkpoints.restore(TREE, 1)
    assert (folder / "1").is_dir() and not (folder / "damaged").exists()


@contextlib.contextmanager
def small_disk():
    """No file can grow beyond 500 bytes, as where the disk is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_in_one_line(tmp_path):
    large = {"x": np.random.default_rng(0).normal(size=5000)}
    with small_disk(), pytest.raises(UsageError, match=r"cannot write .*x\.safetensors.*: File too large$"):
        export_params(tmp_path / "x.safetensors", large)
    assert not list(tmp_path.iterdir())
    with small_disk(), pytest.raises(UsageError, match=r"cannot write .*x\.bin.*: File too large$"):
        replace_file(tmp_path / "x.bin", bytes(5000))
    assert not list(tmp_path.iterdir())
    with Checkpoints(tmp_path / "run") as checkpoints:
        with small_disk(), pytest.raises(UsageError, match=r"cannot write checkpoint 1 in .*run: File too large$"):
            checkpoints.save(1, large)
        assert checkpoints.restore(large) is None
