"""A model's score as a function of streams of floats, differentiable with respect to its input."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mmjax.layers import TokenEmbedding
from mmjax.stream import Stream, apply_mask
from mmjax.training import compile_effort
from mmjax.typing import Array, Float, Mapping, PyTree

__all__ = ["KINDS", "ModelScore", "Score", "as_tree", "compiled", "model_score"]

Score = Callable[[Mapping[str, Stream]], Any]
"""``score(streams) -> [batch]``: one number per example, which depends only on that example."""

KINDS = ("logit", "log_probability", "probability")
BYTE, SAMPLE = 255.0, 2.0**15  # divisors of bytes and 16-bit samples in encoders


class ModelScore(flax.struct.PyTreeNode):
    """A model's score of one class, as a function of its streams with word vectors in place of ids.

    A pytree of arrays: jitted functions take it as an argument, and ``replace(variables=...)`` changes the parameters
    without another compilation.

    Attributes:
      variables: of the model.
      target: ``[batch]`` the class.
      ids: the ids of the streams that hold word vectors.
      model: ``(streams, *, train) -> outputs``.
      tables: ``(path of a TokenEmbedding, name of its stream)``.
      kind: ``logit``, ``log_probability`` or ``probability``.
    """

    variables: PyTree
    target: Any
    ids: dict[str, Any]
    model: nn.Module = flax.struct.field(pytree_node=False)
    tables: tuple[tuple[str, str], ...] = flax.struct.field(pytree_node=False, default=())
    kind: str = flax.struct.field(pytree_node=False, default="logit")

    __eq__, __hash__ = object.__eq__, object.__hash__  # so that ``jax.jit(score)`` works as well

    def outputs(self, streams: Mapping[str, Stream]) -> Any:
        """The model's outputs; for a model with unimodal heads the fused ones."""
        tables = dict(self.tables)

        def substitute(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
            name = tables.get("/".join(context.module.path)) if _is_lookup(context) else None
            if name is None:
                return call(*args, **kwargs)
            ids, mask = args
            return apply_mask(streams[name].values.reshape(*ids.shape, -1), mask)

        with_ids = {name: s.replace(values=self.ids[name]) if name in self.ids else s for name, s in streams.items()}
        with nn.intercept_methods(substitute):
            outputs = self.model.apply(self.variables, with_ids, train=False)
        return outputs["fused"] if isinstance(outputs, dict) else outputs

    def __call__(self, streams: Mapping[str, Stream]) -> Float[Array, " batch"]:
        outputs = self.outputs(streams)
        if outputs.ndim == 1:
            return outputs
        if self.kind != "logit":
            outputs = jax.nn.log_softmax(outputs)
        chosen = jnp.take_along_axis(outputs, self.target[:, None], axis=1)[:, 0]
        return jnp.exp(chosen) if self.kind == "probability" else chosen


def _is_lookup(context: Any) -> bool:
    return isinstance(context.module, TokenEmbedding) and context.method_name == "__call__"


def compiled(function: Callable, *static: str, effort: int = 1) -> Callable:
    """``jax.jit``, cached by function; on a CPU with less optimisation, for programs that run a few times."""
    return _compiled(function, static, effort)


@functools.cache
def _compiled(function: Callable, static: tuple[str, ...], effort: int) -> Callable:
    return jax.jit(function, static_argnames=static, compiler_options=compile_effort(effort))


def _outputs(score: ModelScore, streams: Mapping[str, Stream]) -> Any:
    return score.outputs(streams)


def _word_vectors(model: nn.Module, variables: PyTree, streams: Mapping[str, Stream]) -> dict[str, Any]:
    """Output of every ``TokenEmbedding`` of the model, by its path."""
    outputs: dict[str, Any] = {}

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        vectors = call(*args, **kwargs)
        if _is_lookup(context):
            outputs["/".join(context.module.path)] = vectors
        return vectors

    with nn.intercept_methods(note):
        model.apply(variables, streams, train=False)
    return outputs


def model_score(
    model: nn.Module,
    variables: PyTree,
    streams: Mapping[str, Stream],
    target: Any = None,
    *,
    kind: str = "logit",
) -> tuple[ModelScore, dict[str, Stream]]:
    """A model's score of a class, and its input streams as floats.

    Ids become the word vectors of the model's ``TokenEmbedding`` ``[batch, words, d]``, bytes and 16-bit samples are
    scaled as in encoders. Integers without an embedding (side information) stay and get no attribution.

    Args:
      model: ``(streams, *, train) -> outputs``: logits ``[batch, classes]`` or scores ``[batch]``.
      streams: as the model takes them.
      target: ``[batch]`` the class; None = the predicted one. Not used for scores.
      kind: ``logit``, ``log_probability`` or ``probability`` of the class.

    Raises:
      ValueError: an unknown kind; a label per step (write a custom function); ids whose table is ambiguous.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind=} must be one of {KINDS}")
    streams = {name: stream.replace(values=jnp.asarray(stream.values)) for name, stream in sorted(streams.items())}
    vectors = compiled(_word_vectors, "model", effort=0)(model, variables, streams)
    integers = [name for name, s in streams.items() if s.values.dtype in (jnp.int32, jnp.int64)]
    tables = {path: _owner(path, len(vectors), integers) for path in vectors}
    inputs, ids = {}, {}
    for name, stream in streams.items():
        values = stream.values
        if values.dtype == jnp.uint8:
            values = values.astype(jnp.float32) / BYTE
        elif values.dtype == jnp.int16:
            values = values.astype(jnp.float32) / SAMPLE
        elif name in tables.values():
            ids[name] = values
            path = next(path for path, owner in tables.items() if owner == name)
            values = vectors[path].reshape(*values.shape, -1)
        inputs[name] = stream.replace(values=values).zeroed
    score = ModelScore(variables, jnp.zeros((), jnp.int32), ids, model, tuple(sorted(tables.items())), kind)
    outputs = compiled(_outputs, effort=0)(score, inputs)
    if outputs.ndim > 2:
        raise ValueError(
            f"the model gives outputs {outputs.shape}, a label per step: write a function of streams that picks one "
            f"number per example"
        )
    predicted = outputs.argmax(-1) if target is None and outputs.ndim == 2 else target
    return score.replace(target=jnp.asarray(0 if predicted is None else predicted, jnp.int32)), inputs


def _owner(path: str, tables: int, integers: list[str]) -> str:
    """The stream whose ids a table embeds: it is in that stream's encoder, or there is only one of each."""
    named = [name for name in integers if f"encoders_{name}" in path.split("/")]
    if not named and tables == len(integers) == 1:
        named = integers
    if len(named) != 1:
        raise ValueError(f"cannot tell which of the streams {integers} the table {path} looks up")
    return named[0]


def as_tree(score: Score) -> Any:
    """The score as an argument of jitted functions: a plain function becomes a pytree without leaves."""
    return jax.tree_util.Partial(score) if jax.tree_util.all_leaves([score]) else score
