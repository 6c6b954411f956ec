"""A tower: a module that owns its preprocessing, with published weights in it."""

import dataclasses
import functools
import os
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.encoders.stages import count_stages
from mmjax.errors import UsageError
from mmjax.freezing import FROZEN, call_frozen
from mmjax.paths import find_part
from mmjax.pretrained.weights import Source, place_tensors, read_tensors
from mmjax.stream import Stream
from mmjax.typing import Mapping, PyTree

__all__ = ["Tower", "load_tower", "put_weights"]


@dataclasses.dataclass(frozen=True, eq=False)
class Tower:
    """A pretrained encoder: raw streams (pixels, samples, ids) in, a stream of vectors out.

    Attributes:
      module: ``(stream, *, train=False) -> Stream``; its preprocessing is part of it.
      variables: of the module, as ``module.apply`` takes them: NumPy arrays.
      sha256: of the file of the weights.

    Example:
      >>> tower = Tower(LeNet(dim=4), LeNet(dim=4).init(jax.random.key(0), Stream.of(jnp.ones((1, 1, 8, 8, 3)))), "")
      >>> tower(Stream.of(jnp.ones((2, 1, 8, 8, 3)))).values.shape
      (2, 1, 4)
    """

    module: nn.Module
    variables: PyTree
    sha256: str

    def __call__(self, stream: Stream) -> Stream:
        """The vectors, computed in full float32 on every device."""
        result: Stream = self._compiled(self.variables, stream)
        return result

    def encoder(self, *, frozen: bool = True) -> nn.Module:
        """The module as a part of a model, whose ``init`` gives the published weights.

        Args:
          frozen: True keeps them as they are (as ``mmjax.freezing.Frozen``); False lets them learn, with
            ``mmjax.freezing.by_path`` at a rate of their own.

        Example:
          >>> encoder, images = LeNet(dim=4), Stream.of(jnp.ones((1, 1, 8, 8, 3)))
          >>> tower = Tower(encoder, encoder.init(jax.random.key(7), images), "")
          >>> ours = tower.encoder().init(jax.random.key(0), images)["frozen"]
          >>> bool((ours["out"]["kernel"] == tower.variables["params"]["out"]["kernel"]).all())
          True
        """
        return Published(self.module.clone(), self, frozen)

    @functools.cached_property
    def _compiled(self) -> Any:
        def apply(variables: PyTree, stream: Stream) -> Any:
            with jax.default_matmul_precision("highest"):
                return self.module.apply(variables, stream)

        return jax.jit(apply)


def load_tower(
    module: nn.Module,
    path: str | os.PathLike,
    like: PyTree,
    sources: Mapping[str, Source],
    *,
    sha256: str | None,
    unused: frozenset[str] = frozenset(),
) -> Tower:
    """The tower of a module and a file; the arguments are those of ``read_tensors`` and ``place_tensors``."""
    tensors, found = read_tensors(path, sha256)
    return Tower(module, place_tensors(tensors, like, sources, file=path, unused=unused), found)


class Published(nn.Module):
    """A module whose ``init`` gives the weights of a tower; ``Tower.encoder`` makes it."""

    module: nn.Module
    tower: Tower
    frozen: bool = True

    @property
    def num_stages(self) -> int:
        """Those of the module."""
        return count_stages(self.module)

    def setup(self) -> None:
        nn.share_scope(self, self.module)

    def __call__(self, stream: Stream, *, train: bool = False, **rest: Any) -> Stream:
        def call(module: nn.Module, stream: Stream) -> Stream:
            found: Stream = call_frozen(module, stream, **rest) if self.frozen else module(stream, train=train, **rest)
            return found

        if not self.is_initializing():
            return call(self.module, stream)
        weights = {FROZEN if self.frozen and k == "params" else k: v for k, v in self.tower.variables.items()}

        def put(drawn: Mapping[str, PyTree]) -> dict[str, PyTree]:
            return {name: jax.tree.map(jnp.asarray, weights[name]) for name in drawn}

        first: Stream = nn.map_variables(call, sorted(weights), trans_out_fn=put, init=True)(self.module, stream)
        return first


def put_weights(variables: Mapping[str, PyTree], weights: Mapping[str, Any]) -> dict[str, PyTree]:
    """A model's variables with those of towers (or any others) at paths of it, to be trained on or frozen.

    Args:
      variables: of the model, ``{collection: tree}``, with or without leading axes (seeds) of its own.
      weights: a ``Tower`` or variables by path (see ``mmjax.paths``): ``{"encoders/image": tower}`` of a
        ``Multimodal({"image": tower.module}, ...)``, or of one in which it is ``Frozen``.

    Raises:
      UsageError: a path that is not there, or variables that do not fit it, by name.

    Example:
      >>> encoder, images = LeNet(dim=4), Stream.of(jnp.ones((1, 1, 8, 8, 3)))
      >>> model = nn.Sequential([encoder])
      >>> ours, theirs = model.init(jax.random.key(0), images), encoder.init(jax.random.key(1), images)
      >>> put = put_weights(ours, {"layers_0": theirs})
      >>> bool((put["params"]["layers_0"]["out"]["kernel"] == theirs["params"]["out"]["kernel"]).all())
      True
    """
    result = dict(variables)
    for path, given in weights.items():
        for collection, new in (given.variables if isinstance(given, Tower) else given).items():
            places = [collection, FROZEN] if collection == "params" else [collection]
            found = [(place, keys) for place in places if (keys := find_part(result.get(place, {}), path))]
            if not found:
                there = sorted(key for place in places for key in result.get(place, {}))
                raise UsageError(f"no variables at {collection}/{path}; there are {there}")
            place, keys = found[0]
            result[place] = _put(result[place], keys, new, f"{place}/{path}")
    return result


def _put(tree: Any, keys: tuple[str, ...], new: PyTree, name: str) -> Any:
    if keys:
        return {**tree, keys[0]: _put(tree[keys[0]], keys[1:], new, name)}
    leaves = jax.tree_util.tree_leaves_with_path
    old, given = ({jax.tree_util.keystr(k): np.shape(v) for k, v in leaves(x)} for x in (tree, new))
    wrong = []
    for where in sorted(old.keys() | given.keys()):
        was, has = old.get(where), given.get(where)
        if was is None or has is None or was[len(was) - len(has) :] != has:
            texts = ("nothing" if shape is None else list(shape) for shape in (was, has))
            wrong.append("{} is {} in the model, {} in the weights".format(where, *texts))
    if wrong:
        raise UsageError(f"the weights do not fit {name!r}: {'; '.join(wrong)}")
    return jax.tree.map(lambda was, has: jnp.broadcast_to(jnp.asarray(has, was.dtype), was.shape), tree, new)
