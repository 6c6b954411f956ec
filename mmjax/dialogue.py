"""Dialogue: what was said before as one vector per turn, a fusion turn by turn, and replies that are said word for word.

A batch holds dialogues: a question for each turn ``[batch, turns, words]``, and for each turn the turns before it
``[batch, turns, before, words]``, so that no turn sees itself or a later one and turns can be taken apart.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.checks import Problem
from mmjax.encoders import Recurrent, RecurrentText
from mmjax.errors import UsageError
from mmjax.generation import beam_search
from mmjax.hypotheses import pack
from mmjax.layers import GRU, MLP, MultiHeadAttention, final_state, project_streams
from mmjax.losses import cross_entropy
from mmjax.metrics import Mean
from mmjax.stream import Batch, Stream, apply_mask, check_streams, item_weight, known_target, masked_last, select
from mmjax.typing import Dtype, Mapping, PyTree

__all__ = ["History", "Replies", "ReplyHead", "TurnFusion"]


class History(nn.Module):
    """Words to turns to dialogue (hierarchical recurrent encoder, Serban et al. 2016): a vector per turn of what came
    before it; absent where nothing did.

    Attributes:
      dim: width of the tokens.
      vocab_size: of the ids.
      word_dim: width of the word vectors and of a turn's vector.

    Example:
      >>> before = Stream.of(jnp.ones((2, 5, 4, 6), int), jnp.ones((2, 5, 4, 6), bool))
      >>> History(dim=8, vocab_size=3).init_with_output(jax.random.key(0), before)[0].values.shape
      (2, 5, 8)
    """

    dim: int
    vocab_size: int
    word_dim: int = 64
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, stream: Stream, *, train: bool = False) -> Stream:
        ids, mask = stream.values, stream.mask
        if ids.ndim != 4 or mask.shape != ids.shape:
            raise ValueError(f"a history is ids [batch, turns, before, words] and their mask, got {ids.shape}")
        batch, turns, before, words = ids.shape
        said = Stream(ids.reshape(batch * turns, before, words), mask.reshape(batch * turns, before, words))
        rate, dtype = self.dropout_rate, self.dtype
        sentence = RecurrentText(
            self.word_dim,
            self.vocab_size,
            cell=GRU,
            bidirectional=True,
            pool=final_state,
            dropout_rate=rate,
            dtype=dtype,
            name="words",
        )
        states = Recurrent(self.dim, GRU, dropout_rate=rate, dtype=dtype, name="turns")(
            sentence(said, train=train), train=train
        )
        last = masked_last(states.values, states.mask)
        return Stream(last.reshape(batch, turns, -1), states.mask.any(-1).reshape(batch, turns))


class TurnFusion(nn.Module):
    """A token per turn: what is asked and what was said look at the tokens of the other streams, then an MLP of all.

    ``q = W [turn_1; ...; turn_K]``, ``a_m = attention(q, X_m)``, ``z = q + MLP([q; a_1; ...])``: every turn of a dialogue
    looks at the picture, which was encoded once. An absent stream is zeros.

    Attributes:
      dim: width of the tokens.
      turns: the streams with a vector per turn ``[batch, turns, d]``; the others are looked at.
      num_heads: of the attention.

    Raises:
      ValueError: none of ``turns`` is there, or they have different lengths.

    Example:
      >>> streams = {"image": Stream.of(jnp.ones((2, 9, 3))), "question": Stream.of(jnp.ones((2, 5, 4)))}
      >>> TurnFusion(dim=8, turns=("question",)).init_with_output(jax.random.key(0), streams)[0].values.shape
      (2, 5, 8)
    """

    dim: int
    turns: Sequence[str] = ("history", "question")
    num_heads: int = 4
    dropout_rate: float = 0.0
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream], *, train: bool = False) -> Stream:
        check_streams(streams)
        own = [name for name in sorted(streams) if name in self.turns]
        if not own or len({streams[name].length for name in own}) > 1:
            lengths = {name: streams[name].length for name in own}
            raise ValueError(f"turns are streams of one length, some of {tuple(self.turns)}: got {lengths}")
        tokens = project_streams(streams, self.dim, dtype=self.dtype)
        asked = [tokens[name].zeroed.values for name in own]
        query = MLP((self.dim,), dtype=self.dtype, name="query")(jnp.concatenate(asked, -1), train=train)
        mask, seen = jnp.stack([streams[name].mask for name in own]).any(0), [query]
        for name in sorted(set(tokens) - set(own)):
            look = MultiHeadAttention(self.dim, self.num_heads, dtype=self.dtype, name=f"look_{name}")
            seen.append(look(query, tokens[name].values, mask=tokens[name].mask, role=f"turn_to_{name}", train=train))
            mask = mask | tokens[name].present[:, None]
        mlp = MLP((2 * self.dim, self.dim), dropout_rate=self.dropout_rate, dtype=self.dtype, name="mlp")
        return Stream(query + mlp(jnp.concatenate(seen, -1), train=train), mask).zeroed


class ReplyHead(nn.Module):
    """A decoder that says a sentence for each token of the fused stream ``[batch, turns, dim]``.

    Logits ``[batch, turns, words, vocab_size]`` of the targets ``{"words": Stream [batch, turns, words], ...}``, given
    the words before each (teacher forcing).

    Attributes:
      decoder: a head such as ``TextDecoder``, which is given each turn's token by itself.
    """

    decoder: nn.Module

    @nn.compact
    def __call__(self, stream: Stream, *, targets: Any = None, train: bool = False) -> Any:
        if not isinstance(targets, dict) or not isinstance(targets.get("words"), Stream):
            raise ValueError(f"replies are learned from targets with 'words', a Stream, got {type(targets).__name__}")
        words = targets["words"]
        flat = Stream(*(x.reshape(-1, x.shape[-1]) for x in (words.values, words.mask)))
        logits = self.decoder(_each(stream), targets=flat, train=train)
        return logits.reshape(*words.mask.shape, -1)


def _each(stream: Stream) -> Stream:
    """Every token of every row as a memory of its own."""
    return Stream(stream.values.reshape(-1, 1, stream.values.shape[-1]), stream.mask.reshape(-1, 1))


@dataclasses.dataclass(frozen=True)
class Replies:
    """A sentence for each turn; outputs are logits of its words, targets a dict with ``words`` and ``text``.

    The loss of a turn is the sum of the cross-entropies of its words, its end among them. Held-out replies are
    generated by beam search and never see the target.

    Attributes:
      end_id: of the token that ends a reply.
      max_length: tokens of a reply at most.
      beams, n_best: of the search; as many candidates are kept.
      tokenizer: name of the stream whose tokenizer spells the replies.
    """

    scores: ClassVar[tuple[str, ...]] = ("exact",)
    end_id: int = 0
    max_length: int = 12
    beams: int = 3
    n_best: int = 3
    tokenizer: str = "reply"
    lower_is_better: frozenset[str] = frozenset({"loss"})

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Nats per turn ``[batch, turns]``."""
        words = known_target(batch)["words"]
        return apply_mask(cross_entropy(outputs, words.values), words.mask).sum(-1)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """The loss, and the share of turns each of whose words is right given those before it."""
        words = known_target(batch)["words"]
        right = ((outputs.argmax(-1) == words.values) | ~words.mask).all(-1)
        weight = item_weight(batch)
        return {
            "loss": Mean.of(self.loss(outputs, batch), weight),
            "forced": Mean.of(right.astype(jnp.float32), weight),
        }

    def generate(self, model: nn.Module, variables: PyTree, batch: Batch) -> dict[str, Any]:
        """Ids ``[batch, turns, n_best, words]``, their mask and scores (log-probabilities)."""
        fused = model.apply(variables, batch.streams, method=lambda model, s: model.fusion(model.encode(s)))
        memory, (rows, turns) = _each(fused), fused.mask.shape
        decoder, own = model.head.decoder, {"params": variables["params"]["head"]["decoder"]}
        weight = jnp.repeat(jnp.asarray(batch.weight), turns)
        limits = {"max_length": self.max_length, "beams": self.beams, "n_best": self.n_best}
        found = beam_search(decoder, own, memory, end_id=self.end_id, weight=weight, **limits)
        parts = {"ids": found.tokens.values, "mask": found.tokens.mask, "scores": found.scores}
        return jax.tree.map(lambda x: x.reshape(rows, turns, *x.shape[1:]), parts)

    def spell(self, outputs: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> np.ndarray:
        """The replies as text, with their scores."""
        ids, mask, scores = (np.asarray(outputs[name]) for name in ("ids", "mask", "scores"))
        flat = [
            row[real].tolist() for row, real in zip(ids.reshape(-1, ids.shape[-1]), mask.reshape(-1, ids.shape[-1]))
        ]
        texts = tokenizers[self.tokenizer].decode_batch(flat, skip_special_tokens=False)
        there = np.isfinite(scores)
        named = np.asarray(texts, dtype=object).reshape(scores.shape)
        return pack(np.where(there, named, ""), np.where(there, scores, np.finfo(np.float32).min))

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Replies are words with a mask, and their text."""
        if not isinstance(target, Mapping) or not all(isinstance(target.get(k), Stream) for k in ("words", "text")):
            raise UsageError("replies need a target with the streams 'words' and 'text'")
        silent = real & ~np.asarray(target["words"].mask).any(-1)
        return (np.argwhere(silent)[0].tolist(), "has no word of a reply") if silent.any() else None
