"""Published weights: a safetensors file of named tensors becomes the variables of a linen module, or one error.

Nothing is unpickled and nothing of PyTorch is needed. An architecture says where each of its variables comes from with
a ``Source``; what is missing, left over or of another shape is listed in a single message.
"""

import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.errors import UsageError
from mmjax.extras import extra
from mmjax.files import DamagedFile, file_sha256
from mmjax.typing import Mapping, PyTree

__all__ = ["CONV", "LINEAR", "Source", "place_tensors", "read_tensors", "variable_shapes"]

CONV = (2, 3, 1, 0)
"""PyTorch's kernel of a convolution ``[out, in, height, width]`` as ours, ``[height, width, in, out]``."""
LINEAR = (1, 0)
"""PyTorch's matrix ``[out, in]`` as the kernel of a dense layer, ``[in, out]``."""


class Source(NamedTuple):
    """The tensor of a file that a variable is made of.

    Attributes:
      name: of the tensor.
      axes: its transposition; None = as it is.
    """

    name: str
    axes: tuple[int, ...] | None = None


def read_tensors(path: str | os.PathLike, sha256: str | None = None) -> tuple[dict[str, np.ndarray], str]:
    """The tensors of a safetensors file by name, and the digest of the file.

    Args:
      sha256: of the published file; None = any file.

    Raises:
      UsageError: there is no such file.
      DamagedFile: it is no safetensors file, or not the published one.

    Example:
      >>> read_tensors("nowhere.safetensors")
      Traceback (most recent call last):
      mmjax.errors.UsageError: no weights: there is no file 'nowhere.safetensors'
    """
    with extra():
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

    if not (path := pathlib.Path(path)).is_file():
        raise UsageError(f"no weights: there is no file {str(path)!r}")
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise DamagedFile(path, f"its sha256 is {found}, that of the published file {sha256}; sha256=None takes any")
    try:
        return load_file(path), found
    except (OSError, SafetensorError) as error:
        raise DamagedFile(path, str(error)) from None


def place_tensors(
    tensors: Mapping[str, np.ndarray],
    like: PyTree,
    sources: Mapping[str, Source],
    *,
    file: str | os.PathLike,
    unused: frozenset[str] = frozenset(),
) -> PyTree:
    """The tensors in the structure of ``like``, as float32 NumPy arrays.

    Args:
      like: variables (arrays or shapes) of the module, as ``jax.eval_shape(module.init, ...)`` gives them.
      sources: by path in ``like`` (``params/stem/kernel``), of the whole architecture; those of parts that ``like``
        does not have may be absent from the file.
      file: named in the error.
      unused: names of tensors that may stand in the file and are no weights.

    Raises:
      UsageError: tensors that are missing, left over or of another shape, all of them in one message.

    Example:
      >>> shapes = {"params": {"kernel": jax.ShapeDtypeStruct((3, 2), np.float32)}}
      >>> sources = {"params/kernel": Source("fc.weight", LINEAR)}
      >>> place_tensors({"fc.weight": np.ones((2, 3))}, shapes, sources, file="x")["params"]["kernel"].shape
      (3, 2)
      >>> place_tensors({"fc.bias": np.ones(2)}, shapes, sources, file="x")
      Traceback (most recent call last):
      mmjax.errors.UsageError: the weights of 'x' do not fit: missing: fc.weight [2, 3]; left over: fc.bias [2]
    """
    flat: dict[str, Any] = flatten_dict(like, sep="/")
    missing, wrong, placed = [], [], {}
    for path, leaf in flat.items():
        source = sources[path]
        needed = _before(leaf.shape, source.axes)
        if source.name not in tensors:
            missing.append(f"{source.name} {list(needed)}")
            continue
        found = np.asarray(tensors[source.name])
        if found.shape != needed or not np.issubdtype(found.dtype, np.floating):
            wrong.append(f"{source.name} is {found.dtype} {list(found.shape)} where floating {list(needed)} is needed")
            continue
        found = found if source.axes is None else found.transpose(source.axes)
        placed[path] = np.ascontiguousarray(found, np.float32)
    known = {source.name for source in sources.values()} | unused
    left = [f"{name} {list(np.shape(tensors[name]))}" for name in sorted(set(tensors) - known)]
    lists = {"missing": missing, "left over": left, "wrong shape": wrong}
    if any(lists.values()):
        said = "; ".join(f"{what}: {', '.join(names)}" for what, names in lists.items() if names)
        raise UsageError(f"the weights of {os.fspath(file)!r} do not fit: {said}")
    return unflatten_dict(placed, sep="/")


def _before(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape that the transposition makes ``shape`` of."""
    if axes is None:
        return tuple(shape)
    found = [0] * len(axes)
    for place, axis in enumerate(axes):
        found[axis] = shape[place]
    return tuple(found)


def variable_shapes(module: Any, *args: Any) -> PyTree:
    """Shapes of what ``module.init`` makes for these inputs (arrays or shapes); nothing is computed.

    Example:
      >>> import flax.linen as nn
      >>> variable_shapes(nn.Dense(2), jax.ShapeDtypeStruct((1, 3), np.float32))["params"]["kernel"].shape
      (3, 2)
    """
    return jax.eval_shape(module.init, jax.random.key(0), *args)
