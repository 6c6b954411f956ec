"""Trained models as functions of any batch, and of any mixture of the modalities of test items.

Both run all seeds of a row in one program, compiled once, in chunks of one shape. Permuting, blanking or exchanging
modalities (EMAP, Shapley values, presence patterns, the gate) is then arithmetic on item numbers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax import hypotheses
from mmjax.errors import UsageError
from mmjax.models import Multimodal
from mmjax.resident import is_loopy, map_seeds
from mmjax.stream import Batch, Stream, by_index, drop_rows, where_mask
from mmjax.tasks import Task, generates, kept_logits, kept_outputs
from mmjax.training import compile_effort, predict
from mmjax.typing import Mapping, PyTree

__all__ = ["Mixed", "Probe", "equal_parts"]

Mixed = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""``mixed(rows) -> [seeds, n, classes]``: ``rows`` gives, by modality, the number of the test item whose stream is
used, ``[n]``, or ``[seeds, n]`` for different ones by seed; -1 = absent. ``{m: arange(N) for m}`` is ordinary
prediction.
"""

ROWS = 512
"""Most rows of one call: with twice as many, activations of a transformer exceed a core's cache and a pass takes a
third longer; with half as many, call overhead dominates for small models.
"""


def equal_parts(size: int) -> int:
    """Rows of a call, at most ``ROWS``, such that calls of equal size cover a split with little padding."""
    return math.ceil(size / math.ceil(size / ROWS))


class Probe:
    """The seeds of a trained row as one function.

    Attributes:
      model: of the row.
      task: reads logits off the model's outputs, or makes it say something.
      variables: of all seeds, with a leading axis.
      tokenizers: of the data set by stream, which a task that says sentences needs.
      chunk: examples of a call of the compiled programs; ``mixtures`` the same for fusion and head alone.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        variables: PyTree,
        *,
        chunk: int = ROWS,
        mixtures: int = ROWS,
        tokenizers: Mapping[str, Any] | None = None,
    ):
        self.model, self.task, self.chunk, self.mixtures = model, task, chunk, mixtures
        self.tokenizers = dict(tokenizers or {})
        self.variables = jax.tree.map(jnp.asarray, variables)
        self.seeds = jax.tree.leaves(self.variables)[0].shape[0]
        self._programs: dict[str, Any] = {}

    def loops(self, batch: Batch) -> bool:
        """Whether the model scans or convolves."""
        few = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *np.shape(x)[1:]), jnp.result_type(x)), batch)
        first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.variables)
        return is_loopy(self._whole, first, few)

    def outputs(self, batch: Batch, places: Sequence[int] | None = None) -> np.ndarray:
        """Logits of every labelled item, ``[seeds, items, classes]`` float32, in the order of their index; of a task
        that generates its hypotheses.

        Args:
          places: indices of seeds; None = all. On a CPU one program serves any subset.
        """
        some = np.arange(self.seeds) if places is None else np.asarray(places, np.int32)
        parts = self._chunks("whole", self._whole, batch, self.variables, some)
        return by_index(self._joined(parts), batch.index, lead=1)

    def patterns(self, batch: Batch, present: Sequence[Sequence[str]]) -> np.ndarray:
        """Logits with only some modalities present, ``[patterns, seeds, items, classes]``; a pattern may be empty."""
        streams = {
            name: Stream(
                np.concatenate([stream.values] * len(present)),
                np.concatenate([stream.mask if name in names else np.zeros_like(stream.mask) for names in present]),
            )
            for name, stream in batch.streams.items()
        }
        items = int((np.asarray(batch.index) >= 0).sum())
        number = [np.where(batch.index >= 0, batch.index + place * items, -1) for place in range(len(present))]
        copies = jax.tree.map(lambda x: np.concatenate([x] * len(present)), batch.replace(streams={}))
        outputs = self.outputs(copies.replace(streams=streams, index=np.concatenate(number)))
        return np.moveaxis(outputs.reshape(len(outputs), len(present), items, *outputs.shape[2:]), 1, 0)

    def mixed(self, batch: Batch, seeds: int | None = None) -> Mixed:
        """The model on mixtures of the items of ``batch``; each item is encoded once, here.

        Args:
          seeds: number of seeds, the first ones; None = all.

        Raises:
          UsageError: a label per step, so that examples have several items.
        """
        steps = batch.index.ndim > 1  # of which there is one an example, if they were taken apart
        if steps and batch.index[0].size != 1:
            raise UsageError("mixtures need examples of one labelled item; this row has a label per step")
        variables = jax.tree.map(lambda x: x[:seeds], self.variables)
        order = np.argsort(np.reshape(batch.index, batch.size))
        ordered = jax.tree.map(lambda x: np.asarray(x)[order], batch)
        parts = list(self._chunks("encode", self._encode, ordered, variables))
        encoded = jax.tree.map(lambda *chunks: jnp.concatenate(chunks, axis=1), *parts)

        def mixed(rows: Mapping[str, np.ndarray]) -> np.ndarray:
            lead = (jax.tree.leaves(variables)[0].shape[0],)
            wanted = {name: np.asarray(rows[name], np.int32) for name in encoded}
            wanted = {name: np.broadcast_to(row, (*lead, row.shape[-1])).T for name, row in wanted.items()}
            count = len(next(iter(wanted.values())))
            outputs = []
            for start in range(0, count, self.mixtures):
                stop = start + self.mixtures
                part = {name: _filled(values[start:stop], self.mixtures).T for name, values in wanted.items()}
                outputs.append(jax.device_get(self._run("fuse", self._fuse, variables, encoded, part)))
            joined = self._joined(outputs)[:, :count]
            return joined[:, :, 0] if steps else joined

        return mixed

    @property
    def _encodes(self) -> bool:
        """Whether items are encoded once for all their mixtures; who generates is given streams."""
        return isinstance(self.model, Multimodal) and not generates(self.task)

    def _joined(self, parts: Iterable[PyTree]) -> np.ndarray:
        """Outputs of all parts ``[seeds, items, ...]`` float32, spelled where the task says sentences."""
        if not generates(self.task):
            return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)
        spell: Any = getattr(self.task, "spell", lambda outputs, tokenizers: np.asarray(outputs, np.float32))
        return hypotheses.concatenate([spell(part, self.tokenizers) for part in parts], axis=1)

    def _logits(self, outputs: PyTree) -> Any:
        return kept_logits(self.task, kept_outputs(self.task, outputs))

    def _whole(self, variables: PyTree, batch: Batch) -> Any:
        if generates(self.task):
            return self._generated(variables, batch.replace(streams=drop_rows(batch.streams, batch.weight)))
        return self._logits(predict(self.model, variables, batch))

    def _generated(self, variables: PyTree, batch: Batch) -> Any:
        task: Any = self.task
        return task.generate(self.model, variables, batch)

    def _encode(self, variables: PyTree, batch: Batch) -> Any:
        streams = drop_rows(batch.streams, batch.weight)
        if not self._encodes:
            return streams
        return self.model.apply(variables, streams, method="encode")

    def _fuse(self, variables: PyTree, encoded: Mapping[str, Stream], rows: Mapping[str, Any]) -> Any:
        streams = {}
        for name, stream in encoded.items():
            there = rows[name] >= 0
            taken = jax.tree.map(lambda x: x[jnp.maximum(rows[name], 0)], stream)  # noqa: B023 (used at once)
            streams[name] = taken.replace(mask=taken.mask & where_mask(there, taken.mask))
        if generates(self.task):
            number = jnp.arange(len(there), dtype=jnp.int32)
            return self._generated(variables, Batch(streams, None, jnp.ones(len(there)), number, number))
        if self._encodes:
            return self._logits(self.model.apply(variables, streams, method="fuse_and_predict"))
        return self._logits(self.model.apply(variables, streams, train=False))

    def _chunks(
        self, name: str, function: Callable, batch: Batch, variables: PyTree, places: np.ndarray | None = None
    ) -> Iterator[Any]:
        for start in range(0, batch.size, self.chunk):
            part = jax.tree.map(lambda x: np.asarray(x[start : start + self.chunk]), batch)  # noqa: B023
            count = part.size
            padded = jax.tree.map(lambda x: _filled(x, self.chunk), part)  # one shape, one program
            if places is None:
                outputs = self._run(name, function, variables, padded)
            else:
                outputs = self._run_some(function, variables, places, padded)
            yield jax.tree.map(lambda x: np.asarray(x[:, :count]), outputs)  # noqa: B023

    def _run(self, name: str, function: Callable, variables: PyTree, *arguments: Any) -> Any:
        """All seeds in one program; on a CPU mapped one by one, which is never slower."""
        if name not in self._programs:
            over = map_seeds("map" if jax.default_backend() == "cpu" else "vmap")

            def program(variables: PyTree, *arguments: Any) -> Any:
                if name == "fuse":  # encoded streams and rows have an axis of seeds, too
                    return over(function)(variables, *arguments)
                return over(lambda v: function(v, *arguments))(variables)

            self._programs[name] = jax.jit(program, compiler_options=compile_effort(1))
        return self._programs[name](variables, *arguments)

    def _run_some(self, function: Callable, variables: PyTree, places: np.ndarray, batch: Batch) -> Any:
        """``_run`` for the seeds at these places."""
        if jax.default_backend() != "cpu":
            some = jax.tree.map(lambda x: x[places], variables)
            return self._run("whole", function, some, batch)
        if "some" not in self._programs:

            def program(variables: PyTree, places: Any, count: Any, batch: Batch) -> Any:
                one = lambda place: function(jax.tree.map(lambda x: x[place], variables), batch)  # noqa: E731
                empty = jax.tree.map(
                    lambda x: jnp.zeros((*places.shape, *x.shape), x.dtype), jax.eval_shape(one, places[0])
                )
                put = lambda k, done: jax.tree.map(lambda x, y: x.at[k].set(y), done, one(places[k]))  # noqa: E731
                return jax.lax.fori_loop(0, count, put, empty)

            self._programs["some"] = jax.jit(program, compiler_options=compile_effort(1))
        filled = np.resize(places, self.seeds).astype(np.int32)
        outputs = self._programs["some"](variables, filled, np.int32(len(places)), batch)
        return jax.tree.map(lambda x: x[: len(places)], outputs)


def _filled(values: Any, size: int) -> np.ndarray:
    """``size`` rows, the last repeated."""
    values = np.asarray(values)
    return values if len(values) == size else np.concatenate([values, np.repeat(values[-1:], size - len(values), 0)])
