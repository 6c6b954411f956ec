"""The task of a shared space: a contrastive loss chosen by name, and recall among all of a split."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.checks import Problem
from mmjax.dual_encoder import Embedded, item_pairs
from mmjax.errors import UsageError
from mmjax.losses import gram, info_nce, sigmoid_contrastive, supervised_contrastive, symile, total_correlation, triplet
from mmjax.metrics import Mean
from mmjax.ranking import DIRECTIONS, Sides
from mmjax.stream import Batch, apply_mask, item_weight

__all__ = ["JOINT", "METHODS", "PairLoss", "Retrieval"]

PairLoss = Callable[..., Any]
"""``(task, outputs, left [rows, dim], right [rows, dim], *, positives, present, state) -> [rows]``."""


def _info_nce(task: "Retrieval", outputs: Embedded, left: Any, right: Any, *, state: Any, **rows: Any) -> Any:
    return info_nce(left, right, scale=outputs.scale, **rows)


def _sigmoid(task: "Retrieval", outputs: Embedded, left: Any, right: Any, *, state: Any, **rows: Any) -> Any:
    return sigmoid_contrastive(left, right, scale=outputs.scale, bias=outputs.bias, **rows)


def _triplet(task: "Retrieval", outputs: Embedded, left: Any, right: Any, *, state: Any, **rows: Any) -> Any:
    hardest = 1.0 if state is None else jnp.minimum(state / task.warm_up, 1.0)
    return triplet(left, right, margin=task.margin, hardest=hardest, **rows)


def _dcca(
    task: "Retrieval", outputs: Embedded, left: Any, right: Any, *, positives: Any, present: Any, state: Any
) -> Any:
    mean = total_correlation(left, right, present=present) / min(left.shape[1], right.shape[1])
    return jnp.where(present, 1 - mean, 0)


METHODS: dict[str, PairLoss] = {"info_nce": _info_nce, "sigmoid": _sigmoid, "triplet": _triplet, "dcca": _dcca}
"""Losses of two modalities, averaged over pairs of them."""

OF_COORDINATES = ("dcca",)
"""Those that are of what unit vectors were made from."""


def _supervised(task: "Retrieval", outputs: Embedded, there: dict[str, Any], positives: Any) -> Any:
    names = sorted(there)
    masks = jnp.concatenate([there[name] for name in names], axis=1)
    values = jnp.concatenate([outputs.embeddings[name].values for name in names], axis=1)
    label = jnp.broadcast_to(positives[:, None], masks.shape).reshape(-1)
    flat = values.reshape(-1, values.shape[-1]), label
    loss = supervised_contrastive(*flat, scale=outputs.scale, present=masks.reshape(-1)).reshape(masks.shape)
    return jnp.where(masks, loss, 0).sum(1) / jnp.maximum(masks.sum(1), 1)


def _symile(task: "Retrieval", outputs: Embedded, there: dict[str, Any], positives: Any) -> Any:
    values, present = _single(outputs, there)
    return symile(values, scale=outputs.scale, present=jnp.stack(list(present.values())).all(0))


def _gram(task: "Retrieval", outputs: Embedded, there: dict[str, Any], positives: Any) -> Any:
    values, present = _single(outputs, there)
    return gram(values, task.first, scale=outputs.scale, present=present)


JOINT: dict[str, Callable[..., Any]] = {"supervised": _supervised, "symile": _symile, "gram": _gram}
"""Losses of all modalities at once."""


def _single(outputs: Embedded, there: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Embeddings ``[batch, dim]`` of modalities with one item each, and which are there ``[batch]``."""
    if several := [name for name, mask in there.items() if mask.shape[1] > 1]:
        raise UsageError(
            f"this method takes one item of each modality; {several[0]!r} has {there[several[0]].shape[1]}"
        )
    return {name: outputs.embeddings[name].values[:, 0] for name in there}, {n: mask[:, 0] for n, mask in there.items()}


POSITIVES = ("row", "group", "target")
SCORES = ("rsum", *(f"recall@{k}_{way}" for way in DIRECTIONS for k in (1, 5, 10)))
SCORES = (*SCORES, *(f"median_rank_{way}" for way in DIRECTIONS))


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Items of one modality are sought among those of another; outputs are ``Embedded``, e.g. of ``DualEncoder``.

    The loss of an example is the mean over pairs of modalities that it has whole, and over its items in both: a
    photograph with five captions is five pairs, each of which has the other four as positives. Rows of weight 0 and
    absent modalities are no negatives and no positives, neither in the loss nor among the ranks. Metrics of validation
    and test are among all of the split; recall of train is ``batch_recall@1``, among the rows of a batch.

    Attributes:
      first: modality whose items are the queries forward.
      second: that whose items are sought forward, and are the queries backward.
      method: of the loss. Of pairs of modalities: ``info_nce`` (scaled by what the model learns), ``sigmoid`` (with its
        bias), ``triplet``, ``dcca`` (1 minus the mean canonical correlation of the batch, for ``DeepCCA``; it has no
        negatives), or a function of one's own (``PairLoss``). Of all at once: ``supervised``, ``symile`` and
        ``gram`` (around ``first``), the last two for one item of each modality and positives of the row.
      positives: of an item are those of the same ``row``, of rows of the same ``group`` (photograph), or of the same
        ``target`` (class). Ranks are of the own row.
      pairs: of modalities whose losses are averaged; None = all. For losses of pairs alone.
      margin: of the triplet loss.
      warm_up: epochs over which the triplet loss goes from the sum over negatives to the hardest alone.
      block: rows among which the loss of held-out data is taken, so that it is comparable with that of train.
      scores: of ``mmjax.evaluation.scores``, the primary one first.
      label: entry of the target that holds classes, where it is a dict.

    Raises:
      UsageError: a wrong name or number.
    """

    first: str
    second: str
    method: str | PairLoss = "info_nce"
    positives: str = "row"
    pairs: tuple[tuple[str, str], ...] | None = None
    margin: float = 0.2
    warm_up: int = 0
    block: int = 256
    scores: tuple[str, ...] = SCORES
    label: str | None = None
    lower_is_better: frozenset[str] = frozenset({"loss", *(f"median_rank_{way}" for way in DIRECTIONS)})

    def __post_init__(self):
        if isinstance(self.method, str) and self.method not in {**METHODS, **JOINT}:
            names = ", ".join((*METHODS, *JOINT))
            raise UsageError(f"Retrieval.method is one of {names}, or a function; got {self.method!r}")
        if self.method in ("symile", "gram") and self.positives != "row":
            raise UsageError(f"Retrieval.method {self.method!r} knows positives of the row, not {self.positives!r}")
        if self.positives not in POSITIVES:
            raise UsageError(f"Retrieval.positives is one of {', '.join(POSITIVES)}, got {self.positives!r}")
        if self.warm_up < 0 or self.block < 1:
            raise UsageError(f"Retrieval needs warm_up from 0 and block from 1, got {self.warm_up} and {self.block}")

    def init_state(self) -> Any:
        """The number of epochs so far, where the loss warms up."""
        return jnp.float32(0) if self.method == "triplet" and self.warm_up else None

    def after_epoch(self, state: Any, train_metrics: Any, validation_metrics: Any) -> Any:
        """One more."""
        return state + 1

    def loss(self, outputs: Embedded, batch: Batch, *, state: Any = None) -> Any:
        """Per example ``[batch]``; 0 where none of the pairs of modalities is whole."""
        _check_modalities(outputs, (self.first, self.second))
        positives = self._positives(batch)
        there = {name: one.mask & (batch.weight > 0)[:, None] for name, one in outputs.embeddings.items()}
        if isinstance(self.method, str) and self.method in JOINT:
            return JOINT[self.method](self, outputs, there, positives)
        method = METHODS[self.method] if isinstance(self.method, str) else self.method
        values = outputs.embeddings
        if self.method in OF_COORDINATES:
            if outputs.coordinates is None:
                raise UsageError(f"Retrieval.method {self.method!r} is for DeepCCA, whose outputs have coordinates")
            values = outputs.coordinates
        total = jnp.zeros(batch.weight.shape, jnp.float32)
        count = jnp.zeros(batch.weight.shape, jnp.float32)
        for left, right in self.pairs or itertools.combinations(sorted(outputs.embeddings), 2):
            _check_modalities(outputs, (left, right))
            x, y = (values[name].replace(mask=there[name]) for name in (left, right))
            shape = (len(x.mask), x.mask.shape[1], y.mask.shape[1])
            *items, present = item_pairs(x, y)
            owner = jnp.repeat(positives, shape[1] * shape[2])
            each = method(self, outputs, *items, positives=owner, present=present, state=state).reshape(shape)
            present = present.reshape(shape)
            pairs = present.sum((1, 2))
            total = total + jnp.where(present, each, 0).sum((1, 2)) / jnp.maximum(pairs, 1)
            count = count + (pairs > 0)
        return total / jnp.maximum(count, 1)

    def metrics(self, outputs: Embedded, batch: Batch) -> dict[str, Any]:
        """Loss; of train recall at 1 among the batch, of other data what ``mmjax.ranking.Sides`` tells of the split."""
        weight = item_weight(batch)
        sides = self._sides(outputs, batch.weight)
        if outputs.train:
            hits = [(ranks.values < 1, ranks.mask) for ranks in sides.ranks().values()]
            means = [Mean.of(hit.astype(jnp.float32), mask.astype(jnp.float32)) for hit, mask in hits]
            recall = jax.tree.map(lambda a, b: a + b, *means)
            return {"loss": Mean.of(self.loss(outputs, batch), weight), "batch_recall@1": recall}
        return {"loss": Mean.of(self._loss_in_blocks(outputs, batch), weight), "ranks": sides}

    def keep(self, outputs: Embedded) -> Any:
        """``[batch, 2, items, dim]``: the embeddings of the first modality and of the second, of length 1; zeros where
        there is none, which is how the scores know.
        """
        sides = [outputs.embeddings[name] for name in (self.first, self.second)]
        items = max(side.mask.shape[1] for side in sides)
        return jnp.stack([_widen(apply_mask(side.values, side.mask), items) for side in sides], axis=1)

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Any target will do; of positives by target it is one integer a row.

        Raises:
          UsageError: it is not.
        """
        if self.positives == "target":
            label = self._label(target)
            if np.shape(label) != real.shape or not np.issubdtype(np.asarray(label).dtype, np.integer):
                raise UsageError(f"positives by target need one integer a row, {real.shape}, got {np.shape(label)}")
        return None

    def _label(self, target: Any) -> Any:
        return target if self.label is None else target[self.label]

    def _positives(self, batch: Batch) -> Any:
        """A number for each row; rows of the same one belong together."""
        rows = jnp.arange(batch.size)
        return {"row": lambda: rows, "group": lambda: batch.group, "target": lambda: self._label(batch.target)}[
            self.positives
        ]()

    def _sides(self, outputs: Embedded, weight: Any) -> Sides:
        sides = (outputs.embeddings[name].absent(weight <= 0) for name in (self.first, self.second))
        return Sides(*sides)

    def _loss_in_blocks(self, outputs: Embedded, batch: Batch) -> Any:
        """The loss of each row among the rows of its block; blocks are as equal as can be."""
        blocks = -(-batch.size // self.block)
        if blocks == 1:
            return self.loss(outputs, batch)
        size = -(-batch.size // blocks)
        rest = blocks * size - batch.size

        def split(x: Any) -> Any:
            return jnp.pad(x, [(0, rest), *((0, 0),) * (x.ndim - 1)]).reshape(blocks, size, *x.shape[1:])

        sides = outputs.embeddings, outputs.coordinates
        *sides, rows = jax.tree.map(split, (*sides, batch.replace(streams={})))

        def of_block(some: Any) -> Any:
            embeddings, coordinates, rows = some
            return self.loss(outputs.replace(embeddings=embeddings, coordinates=coordinates), rows)

        return jax.lax.map(of_block, (*sides, rows)).reshape(-1)[: batch.size]


def _widen(values: Any, items: int) -> Any:
    return jnp.pad(values, [(0, 0), (0, items - values.shape[1]), (0, 0)])


def _check_modalities(outputs: Embedded, names: Any) -> None:
    if lacking := [name for name in names if name not in outputs.embeddings]:
        raise UsageError(f"no embeddings of {lacking[0]!r}; the model gives those of {sorted(outputs.embeddings)}")
