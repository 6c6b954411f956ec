"""Checkpoints that survive a kill and notice damage; the only file that imports Orbax. Parameters as safetensors."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.errors import UsageError
from mmjax.extras import extra
from mmjax.typing import PyTree

__all__ = ["Checkpoints", "export_params", "import_params", "read_params"]

# Names of the items on disk; the v1 interface of Orbax reads them too.
STATE, META = "state", "meta"


class Damaged(Exception):
    """What stands on disk is not what was saved."""


@dataclasses.dataclass(frozen=True)
class NewestAndBest:
    """Which checkpoints stay: the newest few, and the earliest of the lowest score."""

    keep: int
    scores: dict[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One decision per checkpoint."""
        steps = [info.step for info in checkpoints]
        newest, best = sorted(steps)[-self.keep :], _best({n: self.scores[n] for n in steps if n in self.scores})
        return [step in newest or step == best for step in steps]


def _best(scores: dict[int, float]) -> int | None:
    """The earliest step of the lowest score; NaN never wins."""
    return min(((score, step) for step, score in scores.items() if not math.isnan(score)), default=(0, None))[1]


class Checkpoints:
    """Numbered checkpoints of a tree in a directory; a context manager.

    A tree holds JAX arrays (typed keys too) and NumPy arrays. Saving is synchronous: when it returns the checkpoint is
    whole, and a full disk raises there. A process killed while it saves leaves the older ones. Every leaf has a digest
    that is verified at restore, for Orbax itself restores flipped bits without a word; a damaged checkpoint is moved to
    ``damaged/`` (in a run of several processes it raises instead) and the one before it is used.

    Attributes:
      directory: where they stand; created.
      keep: how many of the newest stay; the best stays besides.
      read_only: for a reader beside a run that writes: nothing is created, cleaned or moved, and a damaged checkpoint
        is an error.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int = 2, read_only: bool = False):
        with extra():
            import orbax.checkpoint as ocp

        self.directory = pathlib.Path(directory).absolute()
        self.read_only = read_only
        self._args = ocp.args
        self._scores: dict[int, float] = {}
        options = ocp.CheckpointManagerOptions(
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
            preservation_policy=None if read_only else NewestAndBest(keep, self._scores),
        )
        handlers = {STATE: ocp.StandardCheckpointHandler(), META: ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.directory, item_handlers=handlers, options=options)
        for step in self.steps:
            with contextlib.suppress(Damaged):  # found again, and moved away, when it is wanted
                self._keep_score(step, self._content(step)["score"])

    @property
    def steps(self) -> list[int]:
        """The steps that are there, oldest first."""
        return sorted(self._manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """The earliest step of the lowest score; None if no checkpoint has one."""
        return _best({step: score for step, score in self._scores.items() if step in self.steps})

    def save(self, step: int, tree: PyTree, meta: dict | None = None, *, score: float | None = None) -> None:
        """Keeps a tree; a step that is there already stays as it is.

        Args:
          step: its number, larger than those that are there.
          tree: arrays.
          meta: JSON data that goes with them.
          score: by which the best is kept; lower is better.

        Raises:
          RuntimeError: a newer checkpoint is there, so that this one would never be used.
          UsageError: the disk is full.
        """
        if step in self.steps:
            return
        tree = _storable(_present(tree))
        content = {"leaves": _describe(tree), "digests": _digests(tree), "meta": meta or {}, "score": score}
        items = self._args.Composite(
            **{
                STATE: self._args.StandardSave(tree),
                META: self._args.JsonSave(content | {"checksum": _checksum(content)}),
            }
        )
        self._keep_score(step, score)
        try:
            saved = self._manager.save(step, args=items)
        except Exception as error:  # of a full disk Orbax and TensorStore raise several kinds
            if (reason := _full(error)) is None:
                raise
            raise UsageError(f"cannot write checkpoint {step} in {self.directory}: {reason}") from None
        if not saved:
            raise RuntimeError(f"checkpoint {step} was not saved in {self.directory}: there are {self.steps}")

    def restore(self, like: PyTree, step: int | None = None) -> tuple[int, PyTree] | None:
        """The newest whole checkpoint (or that of ``step``) as ``(step, tree)``; None if there is none.

        Args:
          like: a tree of the same structure: arrays, or ``jax.ShapeDtypeStruct`` with shardings. The result lies where
            these lie, on whatever mesh the checkpoint was saved.
          step: a certain checkpoint.

        Raises:
          UsageError: shapes, dtypes or names differ, naming the first that does; the checkpoint of ``step`` is damaged.
        """
        while candidates := [n for n in self.steps if step in (None, n)]:
            number = candidates[-1]
            try:
                return number, self._read(number, like)
            except Damaged as error:
                moved = self._quarantine(number, error)
                if step is not None:
                    raise UsageError(f"checkpoint {number} is damaged ({error}); it was moved to {moved}") from None
        return None

    def restore_meta(self, step: int | None = None) -> dict | None:
        """The JSON data of the newest whole checkpoint, or of ``step``; None if there is none."""
        while candidates := [n for n in self.steps if step in (None, n)]:
            try:
                return self._content(candidates[-1])["meta"]
            except Damaged as error:
                self._quarantine(candidates[-1], error)
        return None

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the directory; a failed save raises here at the latest."""
        self.wait()
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _keep_score(self, step: int, score: float | None) -> None:
        if score is not None:
            self._scores[step] = float(score)

    def _content(self, step: int) -> dict[str, Any]:
        try:
            content = self._manager.restore(step, args=self._args.Composite(**{META: self._args.JsonRestore()}))[META]
            checksum = content.pop("checksum")
        except Exception as error:  # Orbax raises four kinds for one damaged file
            raise Damaged(f"{META}: {type(error).__name__}") from error
        if checksum != _checksum(content):
            raise Damaged(f"{META}: wrong checksum")
        return content

    def _read(self, step: int, like: PyTree) -> PyTree:
        content = self._content(step)
        storable = _storable(_present(like))
        _compare(content["leaves"], _describe(storable), f"checkpoint {step} in {self.directory}")
        # A target that Orbax may keep as it is: it copies into neither arrays nor their buffers.
        target = jax.tree.map(_target, storable)
        try:
            args = self._args.Composite(**{STATE: self._args.StandardRestore(target)})
            tree = self._manager.restore(step, args=args)[STATE]
        except Exception as error:
            raise Damaged(f"{STATE}: {type(error).__name__}") from error
        for name, value in _digests(tree).items():
            if value != content["digests"][name]:
                raise Damaged(f"{name}: wrong digest")
        named = _names(tree)
        leaves = [_as_was(leaf, named[name]) for name, leaf in _names(like).items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _quarantine(self, step: int, error: Exception) -> pathlib.Path:
        if self.read_only or jax.process_count() > 1:
            raise UsageError(
                f"checkpoint {step} in {self.directory} is damaged ({error}): move it away and start again"
            )
        folder = self.directory / "damaged"
        folder.mkdir(exist_ok=True)
        moved = folder / f"{step}-{len(list(folder.iterdir()))}"
        # While it stands there Orbax declines, without a word, to save any older step.
        (self.directory / str(step)).rename(moved)
        self._manager.reload()
        warnings.warn(f"checkpoint {step} is damaged ({error}): moved to {moved}", stacklevel=3)
        return moved


def _full(error: BaseException | None) -> str | None:
    """What the system says of a disk without room; None of another error."""
    while error is not None:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = os.strerror(number)
            if getattr(error, "errno", None) == number or reason.lower() in str(error).lower():
                return reason
        error = error.__cause__ or error.__context__
    return None


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _present(tree: PyTree) -> PyTree:
    """The tree with fields that are None left out: so a checkpoint of before a class had such a field still fits."""

    def lacks(node: Any) -> bool:
        return isinstance(node, flax.struct.PyTreeNode) and any(value is None for value in vars(node).values())

    def strip(node: Any) -> Any:
        if not lacks(node):
            return node
        return {name: _present(value) for name, value in vars(node).items() if value is not None}

    return jax.tree.map(strip, tree, is_leaf=lacks)


def _storable(tree: PyTree) -> PyTree:
    """Typed keys as their data; numbers as arrays."""

    def convert(leaf: Any) -> Any:
        if not _is_key(leaf):
            return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.eval_shape(jax.random.key_data, leaf)
        return jax.random.key_data(leaf)

    return jax.tree.map(convert, tree)


def _as_was(like: Any, leaf: Any) -> Any:
    return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if _is_key(like) else leaf


def _target(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def _names(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path, parts joined with ``/``."""
    return {
        jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in jax.tree_util.tree_leaves_with_path(tree)
    }


def _describe(tree: PyTree) -> dict[str, list[Any]]:
    return {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in _names(tree).items()}


def _compare(actual: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    """Names what differs.

    Raises:
      UsageError: a leaf that is missing, unexpected, or of another shape or dtype.
    """
    problems = []
    for label, names in (
        ("lacks", expected.keys() - actual.keys()),
        ("has unexpected", actual.keys() - expected.keys()),
    ):
        if names:
            problems.append(f"{label} {', '.join(sorted(names)[:8])}" + ", ..." * (len(names) > 8))
    for name in sorted(expected.keys() & actual.keys()):
        if list(expected[name]) != list(actual[name]):
            shape, dtype = actual[name]
            problems.append(f"has {name} as {dtype}{shape}, wanted {expected[name][1]}{expected[name][0]}")
    if problems:
        more = f" (and {len(problems) - 4} more)" if len(problems) > 4 else ""
        raise UsageError(f"{what} does not fit: it {'; it '.join(problems[:4])}{more}")


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digests(tree: PyTree) -> dict[str, int]:
    leaves = {name: _words(leaf) if isinstance(leaf, np.ndarray) else leaf for name, leaf in _names(tree).items()}
    return {name: int(value) for name, value in jax.device_get(_digest_all(leaves)).items()}


def _words(array: np.ndarray) -> np.ndarray:
    """The bits of a host array; on their way to the device 8-byte numbers would lose half of them."""
    size = min(array.dtype.itemsize, 4)
    return np.frombuffer(array.tobytes(), {1: np.uint8, 2: np.uint16, 4: np.uint32}[size])


@jax.jit
def _digest_all(tree: PyTree) -> PyTree:
    return jax.tree.map(_digest, tree)


def _digest(x: Any) -> Any:
    """A sum of all words with odd weights by position: any one changed word is seen, and sharding does not matter."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag], -1)
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
    u = jax.lax.bitcast_convert_type(x, words).astype(jnp.uint32)
    position = jnp.zeros(u.shape, jnp.uint32)  # counted without a reshape, which would gather a sharded array
    for axis, size in enumerate(u.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, u.shape, axis)
    position = position * jnp.uint32(2654435761)
    weights = ((position ^ (position >> 15)) * jnp.uint32(2246822519)) | jnp.uint32(1)
    return jnp.sum(u * weights, dtype=jnp.uint32)


def export_params(path: str | os.PathLike, variables: PyTree) -> None:
    """Writes nested dictionaries of arrays to one safetensors file, the names joined with ``/``; replaces it whole.

    Raises:
      UsageError: the disk is full, or the folder cannot be written.
    """
    with extra():
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

    path = pathlib.Path(path)
    flat = flatten_dict(_storable(variables), sep="/")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    # Copied: safetensors takes the memory as it lies, also that of a transposed view.
    try:
        save_file({name: np.array(leaf, order="C") for name, leaf in flat.items()}, partial)
        partial.replace(path)
    except (SafetensorError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"cannot write {str(path)!r}: {_full(error) or error}") from None


def read_params(path: str | os.PathLike) -> PyTree:
    """What ``export_params`` wrote, as nested dictionaries of NumPy arrays, whatever their shapes are.

    Raises:
      UsageError: the file cannot be read.
    """
    with extra():
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

    try:
        return unflatten_dict(load_file(path), sep="/")
    except (OSError, SafetensorError) as error:
        raise UsageError(f"no parameters in {str(path)!r}: {error}") from None


def import_params(path: str | os.PathLike, like: PyTree) -> PyTree:
    """The arrays of a safetensors file in the structure of ``like`` (arrays or shapes), as NumPy arrays.

    Raises:
      UsageError: the file cannot be read, or a leaf is missing, unexpected, or of another shape or dtype, each named.
    """
    with extra():
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

    try:
        flat = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"no parameters in {str(path)!r}: {error}") from None
    names = _names(storable := _storable(like))
    tensors = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in flat.items()}
    _compare(tensors, _describe(storable), str(path))
    leaves = jax.tree.leaves(like)
    return jax.tree.unflatten(jax.tree.structure(like), [_as_was(a, flat[name]) for a, name in zip(leaves, names)])
