"""Conversion of targets that are pytrees to arrays by name and back, for ``targets.npz``.

Names of parts end in ``.values`` and ``.mask`` for a stream, ``/key`` for an entry of a dict, ``[0]`` for one of a
tuple.
"""

from typing import Any

import numpy as np

from mmjax.errors import UsageError
from mmjax.stream import Stream
from mmjax.typing import Mapping

__all__ = ["flatten_target", "rebuild_target"]


def flatten_target(name: str, target: Any) -> dict[str, np.ndarray]:
    """The arrays of a target by names that begin with ``name``.

    Raises:
      UsageError: a key with special characters, a part that is no array, stream, dict or tuple, or an empty target.
    """
    if isinstance(target, Stream):
        return {f"{name}.values": np.asarray(target.values), f"{name}.mask": np.asarray(target.mask)}
    if isinstance(target, Mapping):
        parts = {_key(name, key): value for key, value in target.items()}
    elif isinstance(target, (tuple, list)) and any(_is_part(one) for one in target):
        parts = {f"{name}[{place}]": value for place, value in enumerate(target)}
    elif target is None or ((values := np.asarray(target)).dtype == object and not values.ndim):
        raise UsageError(f"{name} must be an array, a Stream, or a dict or tuple of such; got {type(target).__name__}")
    else:
        return {name: values}
    if not parts:
        raise UsageError(f"{name} is an empty {type(target).__name__}: a target holds an array")
    return {key: array for part, value in parts.items() for key, array in flatten_target(part, value).items()}


def rebuild_target(name: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """The target with the arrays under ``name``; lists become tuples.

    Raises:
      KeyError: no array of that name.
    """
    if name in arrays:
        return arrays[name]
    if f"{name}.values" in arrays:
        return Stream(arrays[f"{name}.values"], arrays[f"{name}.mask"])
    rest = [key.removeprefix(name) for key in arrays if key.startswith((f"{name}/", f"{name}["))]
    if not rest:
        raise KeyError(name)
    if rest[0].startswith("["):
        count = 1 + max(int(key[1 : key.index("]")]) for key in rest)
        return tuple(rebuild_target(f"{name}[{place}]", arrays) for place in range(count))
    keys = dict.fromkeys(key[1:].partition("/")[0].partition(".")[0].partition("[")[0] for key in rest)
    return {key: rebuild_target(f"{name}/{key}", arrays) for key in keys}


def _is_part(value: Any) -> bool:
    """Whether an entry of a list is a part of a pytree; nested lists of numbers are arrays."""
    return isinstance(value, (Stream, Mapping, tuple)) or getattr(value, "ndim", 0) > 0


def _key(name: str, key: Any) -> str:
    if not isinstance(key, str) or not key or set(key) & set("./[]"):
        raise UsageError(f"{name} has the key {key!r}: it must be a word without any of . / [ ]")
    return f"{name}/{key}"
