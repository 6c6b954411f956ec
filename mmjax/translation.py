"""The task of translation: a sentence of another one, by teacher forcing and, when held out, by beam search."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.captioning import Captioning, token_accuracy, token_weight
from mmjax.checks import Problem, first_problem
from mmjax.errors import UsageError
from mmjax.metrics import Mean
from mmjax.stream import Batch, Stream, known_target
from mmjax.typing import Array, Bool, Float, Int

__all__ = ["Translation", "inverse_square_root", "token_nats"]


def token_nats(
    logits: Float[Array, "*items length vocab"],
    tokens: Int[Array, "*items length"],
    mask: Bool[Array, "*items length"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, "*items length"]:
    """Cross-entropy of each real token in nats, 0 in padding; smoothing gives the uniform distribution that share.

    As ``mmjax.losses.cross_entropy``, with one pass over the vocabulary and no array of its size besides the logits.

    Example:
      >>> token_nats(jnp.zeros((1, 2, 4)), jnp.asarray([[1, 0]]), jnp.asarray([[True, False]])).round(2).tolist()
      [[1.3899999856948853, 0.0]]
    """
    logits = jnp.where(mask[..., None], logits, 0)
    total = jax.nn.logsumexp(logits, axis=-1)
    wanted = jnp.take_along_axis(logits, jnp.where(mask, tokens, 0)[..., None], axis=-1)[..., 0]
    if label_smoothing:
        wanted = (1 - label_smoothing) * wanted + label_smoothing * logits.mean(-1)
    return jnp.where(mask, total - wanted, 0)


def inverse_square_root(learning_rate: float, total_steps: int, *, warmup: int = 2_000) -> Any:
    """Rises linearly to the learning rate over ``warmup`` updates, then falls with one over the square root of their
    number (Vaswani et al. 2017, section 5.3). A schedule of ``mmjax.training.Train``; how many updates there are does
    not matter to it.

    Example:
      >>> schedule = inverse_square_root(1.0, 0, warmup=4)
      >>> [round(float(schedule(update)), 2) for update in (0, 1, 3, 15)]
      [0.25, 0.5, 1.0, 0.5]
    """

    def schedule(update: Any) -> Any:
        number = jnp.asarray(update, jnp.float32) + 1
        return learning_rate * jnp.minimum(number / warmup, jnp.sqrt(warmup / number))

    return schedule


@dataclasses.dataclass(frozen=True)
class Translation(Captioning):
    """A sentence said of an example: outputs are logits ``[batch, length, vocab_size]``, as of ``TextDecoder``.

    The target is a dict: ``tokens``, ids ``[batch, length]`` with an end, and ``text``, the references as bytes
    (``mmjax.hypotheses.encode_texts``), which the scores read. The loss is the mean over all tokens of a batch, as
    translators are trained; each epoch is measured by teacher forcing. Of held-out data what the chosen parameters say
    is kept: beam search, see ``Captioning``.

    Example:
      >>> tokens = Stream(jnp.asarray([[2, 1, 0]]), jnp.asarray([[True, True, False]]))
      >>> batch = Batch({}, {"tokens": tokens}, jnp.ones(1), jnp.arange(1), jnp.arange(1))
      >>> round(float(Translation(end_id=1).loss(jnp.zeros((1, 3, 4)), batch)), 3)
      1.386
    """

    max_length: int = 60
    beams: int = 5
    label_smoothing: float = 0.1
    tokenizer: str = "text"
    scores: tuple[str, ...] = ("bleu_tokens", "chrf")

    def loss(self, outputs: Any, batch: Batch) -> Any:
        """Nats, the mean over all tokens of the batch; a scalar."""
        tokens, of_tokens = known_target(batch)["tokens"], token_weight(batch)
        nats = token_nats(outputs, tokens.values, tokens.mask, label_smoothing=self.label_smoothing)
        return (jnp.where(of_tokens > 0, nats, 0) * of_tokens).sum() / jnp.maximum(of_tokens.sum(), 1e-9)

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Any]:
        """Loss without smoothing, and the share of tokens that are the likeliest after those before them."""
        tokens = known_target(batch)["tokens"]
        nats = token_nats(outputs, tokens.values, tokens.mask)
        return {"loss": Mean.of(nats, token_weight(batch)), "token_accuracy": token_accuracy(outputs, batch)}

    def check_target(self, target: Any, real: np.ndarray) -> Problem | None:
        """Every item has tokens.

        Raises:
          UsageError: the target has no ``tokens`` ``[*items, length]``.
        """
        tokens = target.get("tokens") if isinstance(target, Mapping) else None
        if not isinstance(tokens, Stream) or np.ndim(tokens.mask) != real.ndim + 1:
            raise UsageError(f"a translation is a dict with a Stream 'tokens' [*{real.shape}, length]")
        none = real & ~np.asarray(tokens.mask).any(-1)
        return first_problem(none, lambda at: "no translation")
