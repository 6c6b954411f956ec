"""Parts of a model by the path of their parameters: ``encoders/image`` is what stands under ``encoders_image``."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax

from mmjax.errors import UsageError
from mmjax.typing import Mapping, PyTree

__all__ = ["find_part", "longest_match"]


def find_part(tree: Mapping[str, PyTree], path: str) -> tuple[str, ...] | None:
    """The keys that lead to a part of nested dictionaries; None where it is not there.

    Args:
      path: keys joined by ``/``; linen joins the names of a field and of an entry by ``_``, so that the two signs are
        one here: ``encoders/image`` finds what ``Multimodal({"image": ...})`` calls ``encoders_image``.

    Example:
      >>> find_part({"encoders_image": {"stem": {"kernel": 1}}}, "encoders/image/stem")
      ('encoders_image', 'stem')
    """
    for keys in _leaves(tree):
        for part in _parts(keys):
            if _plain(part) == _plain([path]):
                return part
    return None


def longest_match(tree: Mapping[str, PyTree], values: Mapping[str, Any], default: Any) -> PyTree:
    """For every leaf the value of the longest path that leads to it or to a part around it.

    Args:
      values: by path, as in ``find_part``; ``""`` leads to everything.

    Raises:
      UsageError: a path that leads to nothing; the parts that are there are listed.

    Example:
      >>> longest_match({"a": {"x": 0, "y": 0}, "b": 0}, {"a": 2, "a/y": 3}, 1)
      {'a': {'x': 2, 'y': 3}, 'b': 1}
    """
    if unknown := [path for path in values if path and find_part(tree, path) is None]:
        there = sorted({"/".join(keys[:2]) for keys in _leaves(tree)})
        raise UsageError(f"no parameters at {unknown[0]!r}; there are {', '.join(there)}")
    wanted = {_plain([path]): value for path, value in values.items()}

    def value(keys: tuple[str, ...]) -> Any:
        found = [wanted[_plain(part)] for part in _parts(keys) if _plain(part) in wanted]
        return found[-1] if found else wanted.get("", default)

    return jax.tree_util.tree_map_with_path(lambda path, _: value(_keys(path)), tree)


def _leaves(tree: Any) -> Iterator[tuple[str, ...]]:
    return (_keys(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree))


def _keys(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _parts(keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of the parts around a leaf, from without, and its own."""
    return (keys[:i] for i in range(1, len(keys) + 1))


def _plain(keys: Iterable[str]) -> str:
    return "_".join(keys).replace("/", "_")
