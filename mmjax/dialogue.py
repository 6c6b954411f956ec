"""Dialogue: what was said before as a vector per turn, a fusion turn by turn, and replies that are generated.

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

from mmjax.captioning import kept_hypotheses, spelled
from mmjax.checks import Problem, first_problem
from mmjax.encoders import Recurrent, RecurrentText
from mmjax.errors import UsageError
from mmjax.generation import beam_search
from mmjax.layers import GRU, MLP, MultiHeadAttention, final_state, project_streams
from mmjax.losses import cross_entropy
from mmjax.metrics import Mean
from mmjax.stream import Batch, Stream, apply_mask, check_streams, item_weight, known_target, masked_last
from mmjax.typing import Dtype, Float, Mapping, PyTree

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

    ``q = W [turn_1; ...; turn_K]``, ``a_m = attention(q, X_m)``, ``z = q + MLP([q; a_1; ...])``: every turn of a
    dialogue looks at the picture, which was encoded once. An absent stream is zeros.

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
    """A head that says a sentence, for each token of the fused stream ``[batch, turns, dim]`` by itself.

    Logits ``[batch, turns, words, vocab_size]`` of targets ``{"tokens": Stream [batch, turns, words], ...}``, given the
    words before each (teacher forcing).

    Attributes:
      decoder: ``TextDecoder`` or the like.

    Example:
      >>> from mmjax.decoder import TextDecoder
      >>> fused, words = Stream.of(jnp.ones((2, 5, 8))), Stream.of(jnp.zeros((2, 5, 4), int), jnp.ones((2, 5, 4), bool))
      >>> head = ReplyHead(TextDecoder(8, vocab_size=6))
      >>> head.init_with_output(jax.random.key(0), fused, targets={"tokens": words})[0].shape
      (2, 5, 4, 6)
    """

    decoder: nn.Module

    @nn.compact
    def __call__(self, stream: Stream, *, targets: Any = None, train: bool = False) -> Any:
        tokens = targets.get("tokens") if isinstance(targets, Mapping) else None
        if not isinstance(tokens, Stream):
            raise ValueError(f"replies are learned from targets with a Stream 'tokens', got {type(targets).__name__}")
        flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), tokens)
        logits = self.decoder(_each(stream), targets=flat, train=train)
        return logits.reshape(*tokens.mask.shape, -1)


def _each(stream: Stream) -> Stream:
    """Every token of every row as a memory of its own."""
    return Stream(stream.values.reshape(-1, 1, stream.values.shape[-1]), stream.mask.reshape(-1, 1))


@dataclasses.dataclass(frozen=True)
class Replies:
    """A sentence for each turn, said by ``ReplyHead`` in a ``Multimodal``.

    The target is a dict: ``tokens``, ids ``[batch, turns, words]`` with an end each, and ``text``, the replies as bytes
    (``mmjax.hypotheses.encode_texts``). The loss of a turn is the sum over its words, by teacher forcing; held-out
    replies are generated and never see the target.

    Attributes:
      end_id: of the token that ends a reply.
      max_length: tokens of a reply at most.
      beams, n_best: of the search; as many candidates are kept.
      tokenizer: name of that which made the ids, among those of the data set.

    Example:
      >>> tokens = Stream.of(jnp.zeros((1, 2, 3), int), jnp.ones((1, 2, 3), bool))
      >>> index = jnp.arange(2)[None]
      >>> Replies().loss(jnp.zeros((1, 2, 3, 4)), Batch({}, {"tokens": tokens}, jnp.ones(1), index, index)).round(2)
      Array([[4.16, 4.16]], dtype=float32)
    """

    scores: ClassVar[tuple[str, ...]] = ("sentence_exact",)
    end_id: int = 0
    max_length: int = 12
    beams: int = 3
    n_best: int = 3
    tokenizer: str = "question"
    lower_is_better: frozenset[str] = frozenset({"loss"})

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Nats per turn ``[batch, turns]``."""
        tokens = known_target(batch)["tokens"]
        logits = jnp.where(tokens.mask[..., None], outputs, 0)
        return apply_mask(cross_entropy(logits, tokens.values), tokens.mask).sum(-1)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """The loss, and the share of turns whose words are all the likeliest after those before them."""
        tokens, weight = known_target(batch)["tokens"], item_weight(batch)
        right = ((outputs.argmax(-1) == tokens.values) | ~tokens.mask).all(-1)
        said = Mean.of(right.astype(jnp.float32), weight)
        return {"loss": Mean.of(self.loss(outputs, batch), weight), "reply_accuracy_forced": said}

    def generate(self, model: nn.Module, variables: PyTree, batch: Batch) -> dict[str, Any]:
        """``ids``, ``mask`` ``[batch, turns, n_best, words]`` and ``scores`` ``[batch, turns, n_best]``, best first."""
        fused: Any = model.apply(variables, batch.streams, method=lambda model, s: model.fusion(model.encode(s)))
        rows, turns = fused.mask.shape
        found = beam_search(
            model.head.decoder,
            {"params": variables["params"]["head"]["decoder"]},
            _each(fused),
            max_length=self.max_length,
            end_id=self.end_id,
            beams=self.beams,
            n_best=self.n_best,
            weight=jnp.repeat(jnp.asarray(batch.weight), turns),
        )
        return jax.tree.map(lambda x: x.reshape(rows, turns, *x.shape[1:]), kept_hypotheses(found))

    def spell(self, outputs: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> Float[np.ndarray, "*lead width"]:
        """The replies as text with their scores, ``[..., n_best, 1 + bytes]``."""
        return spelled(self, outputs, tokenizers)

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Every turn has a reply.

        Raises:
          UsageError: the target has no ``tokens`` ``[*items, words]``.
        """
        tokens = target.get("tokens") if isinstance(target, Mapping) else None
        if not isinstance(tokens, Stream) or np.shape(tokens.mask)[:-1] != real.shape:
            raise UsageError(f"replies are a dict with a Stream 'tokens' [*{real.shape}, words]")
        return first_problem(real & ~np.asarray(tokens.mask).any(-1), lambda at: f"turn {at} has no reply")
