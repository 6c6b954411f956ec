"""The task of captioning: several sentences about one example, said by teacher forcing and generated when held out."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.checks import Problem, first_problem
from mmjax.errors import UsageError
from mmjax.generation import Hypotheses, beam_search
from mmjax.hypotheses import pack
from mmjax.losses import cross_entropy
from mmjax.metrics import Mean
from mmjax.stream import Batch, Stream, check_streams, item_weight, known_target
from mmjax.typing import Array, Float, PyTree

__all__ = [
    "NO_HYPOTHESIS",
    "Captioning",
    "Items",
    "PerCaption",
    "decode_ids",
    "kept_hypotheses",
    "spelled",
    "token_accuracy",
    "token_weight",
]

NO_HYPOTHESIS = -1e30
"""The score that stands where a beam found fewer hypotheses than it was asked for."""


class Items(nn.Module):
    """The items of the only stream as they are: what a decoder of one modality reads.

    Raises:
      ValueError: several streams.

    Example:
      >>> Items().apply({}, {"image": Stream.of(jnp.ones((2, 5, 3)))}).values.shape
      (2, 5, 3)
    """

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        check_streams(streams)
        if len(streams) > 1:
            raise ValueError(f"Items takes one stream, got {sorted(streams)}")
        return next(iter(streams.values())).zeroed


class PerCaption(nn.Module):
    """A head of sequences as one that is taught by the captions in a target of several parts.

    Logits are ``[batch, captions, words, vocab_size]``. For generation (``start``, ``step``) it is the head itself.

    Attributes:
      head: ``(memory, *, targets, train) -> logits`` for ids ``[batch, captions, words]``, such as ``TextDecoder``.

    Example:
      >>> from mmjax.decoder import TextDecoder
      >>> memory, words = Stream.of(jnp.ones((2, 5, 3))), Stream(jnp.zeros((2, 4, 7), int), jnp.ones((2, 4, 7), bool))
      >>> head = PerCaption(TextDecoder(8, vocab_size=6))
      >>> head.init_with_output(jax.random.key(0), memory, targets={"tokens": words})[0].shape
      (2, 4, 7, 6)
    """

    head: nn.Module

    def __call__(
        self, stream: Stream, *, targets: Stream | Mapping[str, Any] | None = None, train: bool = False
    ) -> Float[Array, "b captions words vocab_size"]:
        """Logits of every token of ``targets``, ids ``[batch, captions, words]`` or a dict with these as ``tokens``."""
        tokens = targets["tokens"] if isinstance(targets, Mapping) else targets
        logits: Any = self.head(stream, targets=tokens, train=train)
        return logits

    def start(self, stream: Stream, max_length: int) -> Any:
        """Empty caches for a memory."""
        return self.head.start(stream, max_length)

    def step(self, ids: Any, caches: Any, position: Any) -> Any:
        """Logits of the next token, and the caches with it."""
        return self.head.step(ids, caches, position)


@dataclasses.dataclass(frozen=True)
class Captioning:
    """Sentences about an example: outputs are logits ``[batch, captions, words, vocab_size]``, as of ``PerCaption``.

    The target is a dict: ``tokens``, ids ``[batch, captions, words]`` with an end each, and ``text``, the references as
    bytes (``mmjax.hypotheses.encode_texts``), which the scores read. Each epoch is measured by teacher forcing; of
    held-out data what the chosen parameters say is kept.

    Attributes:
      end_id: of the end of a sentence.
      max_length: words of a generated sentence at most.
      beams: of the search; 1 = greedy.
      n_best: hypotheses that are kept.
      also: widths of further searches, whose best hypotheses are kept after these, one of each.
      length_penalty: alpha of ``mmjax.generation.gnmt_penalty``.
      label_smoothing: in the loss that is trained, not among the metrics.
      tokenizer: name of that which made the ids, among those of the data set.
      scores: of ``mmjax.evaluation.scores``, the primary one first.

    Raises:
      UsageError: a wrong number.
    """

    end_id: int
    max_length: int = 20
    beams: int = 1
    n_best: int = 1
    also: tuple[int, ...] = ()
    length_penalty: float = 0.0
    label_smoothing: float = 0.0
    tokenizer: str = "text"
    scores: tuple[str, ...] = ("bleu4_captions", "cider_d", "rouge_l", *(f"bleu{n}_captions" for n in (1, 2, 3)))
    lower_is_better: frozenset[str] = frozenset({"loss"})

    def __post_init__(self):
        if self.max_length < 1 or not 1 <= self.n_best <= self.beams or self.end_id < 0:
            raise UsageError(
                f"Captioning needs an end_id from 0, max_length from 1 and n_best from 1 to beams; got {self.end_id=}, "
                f"{self.max_length=}, {self.n_best=}, {self.beams=}"
            )

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Nats per token, the mean over all tokens of an example's captions ``[batch]``; 0 where there is none."""
        return self._nats(outputs, batch, self.label_smoothing)

    def _nats(self, outputs: Any, batch: Batch, label_smoothing: float = 0.0) -> Any:
        tokens = known_target(batch)["tokens"]
        logits = jnp.where(tokens.mask[..., None], outputs, 0)
        nats = jnp.where(tokens.mask, cross_entropy(logits, tokens.values, label_smoothing=label_smoothing), 0)
        return nats.sum((1, 2)) / jnp.maximum(tokens.mask.sum((1, 2)), 1)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Loss without smoothing, and the share of tokens that are the likeliest after those before them."""
        loss = Mean.of(self._nats(outputs, batch), item_weight(batch))
        return {"loss": loss, "token_accuracy": token_accuracy(outputs, batch)}

    def generate(self, model: nn.Module, variables: PyTree, batch: Batch) -> dict[str, Any]:
        """``ids`` and ``mask`` ``[batch, n, max_length]``, ``scores`` ``[batch, n]``: the ``n_best``, best first, and
        one of each further search.
        """
        found = [self._search(model, variables, batch, self.beams, self.n_best)]
        found += [self._search(model, variables, batch, beams, 1) for beams in self.also]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *found)

    def _search(self, model: nn.Module, variables: PyTree, batch: Batch, beams: int, n_best: int) -> dict[str, Any]:
        found = beam_search(
            model,
            variables,
            batch.streams,
            max_length=self.max_length,
            end_id=self.end_id,
            beams=beams,
            n_best=n_best,
            length_penalty=self.length_penalty,
            weight=batch.weight,
        )
        return kept_hypotheses(found)

    def spell(self, outputs: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> Float[np.ndarray, "*lead width"]:
        """Packed hypotheses ``[..., n_best, 1 + bytes]``, see ``mmjax.hypotheses.pack``.

        Raises:
          UsageError: the data set has no such tokenizer.
        """
        return spelled(self, outputs, tokenizers)

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Every caption has tokens, and an id from 0 each.

        Raises:
          UsageError: the target has no ``tokens`` ``[*items, captions, words]``.
        """
        tokens = target.get("tokens") if isinstance(target, Mapping) else None
        if not isinstance(tokens, Stream) or np.ndim(tokens.mask) != real.ndim + 2:
            raise UsageError(f"captions are a dict with a Stream 'tokens' [*{real.shape}, captions, words]")
        none = real & ~np.asarray(tokens.mask).any((-1, -2))
        return first_problem(none, lambda at: f"example {at} has no caption")


def token_weight(batch: Batch) -> Any:
    """The weight of each target token, that of its example; 0 in padding."""
    mask, weight = known_target(batch)["tokens"].mask, item_weight(batch)
    return jnp.where(mask, weight.reshape(-1, *(1,) * (mask.ndim - 1)), 0.0)


def token_accuracy(outputs: Any, batch: Batch) -> Mean:
    """The share of target tokens that are likeliest after those before them, of logits ``[*tokens, vocab_size]``."""
    right = outputs.argmax(-1) == known_target(batch)["tokens"].values
    return Mean.of(right.astype(jnp.float32), token_weight(batch))


def kept_hypotheses(found: Hypotheses) -> dict[str, Any]:
    """What is kept of a search: ``ids``, ``mask`` and finite ``scores``."""
    scores = jnp.maximum(found.scores, NO_HYPOTHESIS)
    return {"ids": found.tokens.values, "mask": found.tokens.mask, "scores": scores}


def spelled(task: Any, outputs: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> Float[np.ndarray, "*lead width"]:
    """What is kept, as packed hypotheses ``[..., n_best, 1 + bytes]``, by the tokenizer that the task names.

    Raises:
      UsageError: the data set has no such tokenizer.
    """
    if task.tokenizer not in tokenizers:
        name = type(task).__name__
        raise UsageError(f"{name}.tokenizer is {task.tokenizer!r}; the data set has {sorted(tokenizers)}")
    return pack(decode_ids(tokenizers[task.tokenizer], outputs["ids"], outputs["mask"]), outputs["scores"])


def decode_ids(tokenizer: Any, ids: Any, mask: Any) -> np.ndarray:
    """The text of each sequence, an array of ``str`` ``[...]``; without unknown words.

    Args:
      tokenizer: a ``tokenizers.Tokenizer``.
      ids, mask: ``[..., words]``.
    """
    ids, mask = np.asarray(ids), np.asarray(mask)
    rows = [row[there].tolist() for row, there in zip(ids.reshape(-1, ids.shape[-1]), mask.reshape(-1, ids.shape[-1]))]
    texts = np.empty(len(rows), object)
    texts[:] = tokenizer.decode_batch(rows)
    return texts.reshape(ids.shape[:-1])
